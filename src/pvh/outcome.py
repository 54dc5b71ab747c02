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


_FEW = 3


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
    unpatched of those that it was forbidden to replace, which never reach Xen's part
    seconds   host time from the first instruction to the end
    exits     how many exits of each kind the machine handled
    halted    nobody asked for the power-off: no vCPU was left running, and Xen powers a domain off then
    idle      no vCPU had anything to execute, and the one of cpu waited for an interrupt

    >>> with pvh.boot(pvh.demo_path()) as guest:
    ...     outcome = guest.wait(timeout=10)
    >>> outcome.ending, outcome.status, outcome.failed
    ('poweroff', 0, False)
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
    unpatched: tuple[int, ...] = ()
    seconds: float = 0.0
    exits: tuple[tuple[str, int], ...] = ()
    idle: bool = False
    halted: bool = False

    @property
    def failed(self) -> bool:
        """Whether the guest did not end itself in an orderly way."""
        return self.ending in ("crash", "triple-fault", "deadline", "hang", "engine")

    @property
    def hypercalls(self) -> tuple[str, ...]:
        """What the engine did, or may not do, about hypercalls in the guest's code: a clause each, for a person."""
        told = (
            ("replaced in the guest's code, for this KVM does not pass them on", self.patched),
            ("left alone because of --no-patch: this KVM does not pass them on", self.unpatched),
        )
        return tuple(f"VMCALL or VMMCALL {what}: {_places(found)}" for what, found in told if found)


def _places(found: tuple[int, ...]) -> str:
    """Return how many addresses there are, and the first few."""
    few = ", ".join(f"{address:#x}" for address in found[:_FEW])
    return f"{len(found)}, at {few}" + (", ..." if len(found) > _FEW else "")
