"""The Image record: a guest as it stands before its first instruction."""

from __future__ import annotations

from pvh.build.cpu_state import CpuState
from pvh.build.ram import GuestRam
from pvh.kernel.source import FileSource
from pvh.plan.record import Plan
from pvh.record import dataclass


@dataclass(frozen=True, slots=True)
class Image:
    """Guest RAM filled as the plan says, and the state the first processor starts in.

    files   the files whose bytes the guest has, to be checked for change at the end (builder.changed_files)
    mapped  bytes of guest RAM that are private mappings of those files; everything else was read or copied
    notes   why a file that could have been mapped was read instead

    >>> image = pvh.build(pvh.plan(pvh.read_kernel(pvh.demo_path()), pvh.BootOptions()))
    >>> image.entry.rip == image.plan.entry
    True
    >>> image.ram.close()
    """

    plan: Plan
    ram: GuestRam
    entry: CpuState
    files: tuple[FileSource, ...] = ()
    mapped: int = 0
    notes: tuple[str, ...] = ()
