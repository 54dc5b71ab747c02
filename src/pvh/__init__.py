"""Build, boot, explain and check kernels that use Xen's HVM direct boot ABI (PVH).

The pipeline, each arrow a function and each box a record:

    file ──read_kernel──▶ Kernel ──plan──▶ Plan ──build──▶ Image ──boot──▶ Guest ──wait──▶ Outcome

Everything is imported on first use.
"""

from __future__ import annotations

import sys
from types import ModuleType

TYPE_CHECKING = False  # as pvh.hints has it, which importing the package should not import
if TYPE_CHECKING:
    from pvh.build.builder import build
    from pvh.build.cpu_state import CpuState
    from pvh.build.image import Image
    from pvh.command import Ran, run_command
    from pvh.console import Console, Match
    from pvh.demo import demo_path
    from pvh.errors import PvhError, Timeout
    from pvh.events import Event
    from pvh.guest import Guest, boot, resume
    from pvh.guest_ended import GuestEnded
    from pvh.kernel.read import read_kernel
    from pvh.kernel.record import Kernel
    from pvh.outcome import Outcome
    from pvh.plan.options import BootOptions, ModuleSpec
    from pvh.plan.planner import plan
    from pvh.plan.record import Plan
    from pvh.snapshot import Snapshot

__version__ = "0.1.0"

_HOMES = {
    "BootOptions": "pvh.plan.options",
    "Console": "pvh.console",
    "CpuState": "pvh.build.cpu_state",
    "Event": "pvh.events",
    "Guest": "pvh.guest",
    "GuestEnded": "pvh.guest_ended",
    "Image": "pvh.build.image",
    "Kernel": "pvh.kernel.record",
    "Match": "pvh.console",
    "ModuleSpec": "pvh.plan.options",
    "Outcome": "pvh.outcome",
    "Plan": "pvh.plan.record",
    "PvhError": "pvh.errors",
    "Ran": "pvh.command",
    "Snapshot": "pvh.snapshot",
    "Timeout": "pvh.errors",
    "boot": "pvh.guest",
    "build": "pvh.build.builder",
    "demo_path": "pvh.demo",
    "plan": "pvh.plan.planner",
    "read_kernel": "pvh.kernel.read",
    "resume": "pvh.guest",
    "run_command": "pvh.command",
}

__all__ = [
    "BootOptions",
    "Console",
    "CpuState",
    "Event",
    "Guest",
    "GuestEnded",
    "Image",
    "Kernel",
    "Match",
    "ModuleSpec",
    "Outcome",
    "Plan",
    "PvhError",
    "Ran",
    "Snapshot",
    "Timeout",
    "__version__",
    "boot",
    "build",
    "demo_path",
    "plan",
    "read_kernel",
    "resume",
    "run_command",
]


class _Facade(ModuleType):
    """This module. `plan` and `build` are functions here, and rooms of the package: importing a room sets its name."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Facade

if not TYPE_CHECKING:  # checkers know what there is, and that there is nothing else

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'pvh' has no attribute {name!r}")
        from importlib import import_module  # most of the time that importing the package took

        value = globals()[name] = getattr(import_module(home), name)
        return value

    def __dir__() -> list[str]:
        return sorted(__all__)
