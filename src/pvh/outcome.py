"""The Outcome record: how a run ended, and what is known about why."""

from __future__ import annotations

from pvh.build.cpu_state import CpuState
from pvh.hints import Literal
from pvh.record import dataclass

Ending = Literal[
    "poweroff", "exit-port", "reboot", "suspend", "crash", "triple-fault", "deadline", "hang", "engine", "interrupted"
]

STATUS: dict[Ending, int] = {
    "poweroff": 0,
    "reboot": 10,
    "suspend": 10,
    "crash": 11,
    "triple-fault": 12,
    "deadline": 13,
    "hang": 13,
    "engine": 14,
    "interrupted": 130,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    status    exit status of `pvh run`: STATUS of the ending, or the value written to port 0xf4
    reason    one clause for a person
    vcpu      the vCPU that ended it, None when none did
    cpu       that vCPU's registers (vCPU 0's when none did)
    recent    linear addresses of the last blocks it executed, newest last (engines that can tell)
    changed   files that changed while the guest ran, each with what happened to it
    patched   guest-physical addresses where the engine replaced VMCALL/VMMCALL
    seconds   host time from the first instruction to the end
    exits     how many exits of each kind the machine handled
    """

    ending: Ending
    status: int
    reason: str
    engine: str
    vcpu: int | None = None
    cpu: CpuState | None = None
    recent: tuple[int, ...] = ()
    changed: tuple[str, ...] = ()
    patched: tuple[int, ...] = ()
    seconds: float = 0.0
    exits: tuple[tuple[str, int], ...] = ()

    @property
    def failed(self) -> bool:
        """Whether the guest did not end itself in an orderly way."""
        return self.ending in ("crash", "triple-fault", "deadline", "hang", "engine")
