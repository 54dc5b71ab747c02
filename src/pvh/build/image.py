"""The Image record: a guest as it stands before its first instruction."""

from __future__ import annotations

from dataclasses import dataclass

from pvh.build.cpu_state import CpuState
from pvh.build.ram import GuestRam
from pvh.kernel.source import FileSource
from pvh.plan.record import Plan


@dataclass(frozen=True, slots=True)
class Image:
    """Guest RAM filled as the plan says, and the state the first processor starts in.

    files  the files whose bytes the guest has, to be checked for change at the end
    """

    plan: Plan
    ram: GuestRam
    entry: CpuState
    files: tuple[FileSource, ...] = ()
