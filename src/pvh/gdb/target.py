"""What a debugger needs of a machine. All methods but interrupt() are called while the machine is stopped."""

from __future__ import annotations

from pvh.build.cpu_state import CpuState
from pvh.hints import Protocol
from pvh.record import dataclass


@dataclass(frozen=True, slots=True)
class Stop:
    """Why the machine stopped: a vCPU, a signal's number (5: a breakpoint or a step, 2: it was asked to).

    ended  how the run ended, with its status, where there is nothing left to debug
    """

    vcpu: int = 0
    signal: int = 5
    ended: tuple[int, str] | None = None


class Target(Protocol):
    """A machine at whose vCPUs a debugger sits."""

    @property
    def vcpus(self) -> int:
        """How many there are; ids from 0."""
        ...

    def state(self, vcpu: int) -> CpuState:
        """Return a vCPU's registers."""
        ...

    def set_state(self, vcpu: int, state: CpuState) -> None:
        """Change a vCPU's registers."""
        ...

    def describe(self, vcpu: int) -> str:
        """Return in few words what a vCPU does: running, halted, down."""
        ...

    def read(self, vcpu: int, address: int, size: int) -> bytes:
        """Return memory at a linear address through a vCPU's page tables: what there is, up to size bytes."""
        ...

    def write(self, vcpu: int, address: int, data: bytes) -> bool:
        """Store at a linear address, whatever the page's permissions; False where there is no memory."""
        ...

    def break_at(self, addresses: frozenset[int]) -> bool:
        """Have these linear addresses, and no others, stop whichever vCPU is to execute there; False: too many."""
        ...

    def go(self) -> None:
        """Have the machine run. wait() tells of its stop."""
        ...

    def step(self, vcpu: int) -> None:
        """Have one vCPU execute one instruction. wait() tells of its stop."""
        ...

    def wait(self, seconds: float) -> Stop | None:
        """Return why the machine stopped, or None if it runs on after a while."""
        ...

    def interrupt(self) -> None:
        """Have a running machine stop soon; from any thread."""
        ...

    def end(self) -> None:
        """End the run."""
        ...

    def monitor(self, words: list[str]) -> str:
        """Carry out a `monitor` command; return what it says."""
        ...
