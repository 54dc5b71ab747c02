"""A Machine as a debugger's target."""

from __future__ import annotations

from contextlib import suppress
from queue import Empty, SimpleQueue

from pvh.abi.x86 import PAGE_SIZE
from pvh.build.linear import LinearFault, LinearMemory
from pvh.errors import PvhError
from pvh.gdb.monitor import History, say
from pvh.gdb.target import Stop
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.build.cpu_state import CpuState
    from pvh.machine import Machine
    from pvh.outcome import Outcome

_SIGINT = 2


class MachineTarget:
    """One machine, before its run or in it. finish() comes from whoever ran it, the rest from the debugger's thread."""

    def __init__(self, machine: Machine, history: History) -> None:
        """Take the machine's breakpoints."""
        self._machine = machine
        self._history = history
        self._stops: SimpleQueue[Stop] = SimpleQueue()
        self._ended: tuple[int, str] | None = None
        self._last = 0
        machine.debug(lambda vcpu: self._stops.put(Stop(vcpu)))

    @property
    def vcpus(self) -> int:
        """How many there are."""
        return len(self._machine.vm.vcpus)

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self._ended is not None

    def finish(self, outcome: Outcome) -> None:
        """Note that the run is over."""
        self._ended = outcome.status, f"{outcome.ending}: {outcome.reason}"
        self._stops.put(Stop(ended=self._ended))

    def stop(self) -> Stop:
        """Have the machine stop now, for a debugger that comes."""
        if not self._machine.pause():
            return self.wait(10) or Stop(ended=self._ended or (0, "the run is over"))
        return Stop(self._last)

    def leave(self) -> None:
        """Have the machine run on, as no debugger is there."""
        while not self._stops.empty():
            self._stops.get()
        self._machine.unpause()

    def state(self, vcpu: int) -> CpuState:
        """Return a vCPU's registers."""
        return self._machine.vm.vcpus[vcpu].state()

    def set_state(self, vcpu: int, state: CpuState) -> None:
        """Change a vCPU's general registers, RIP and RFLAGS."""
        self._machine.vm.vcpus[vcpu].assign(state.gprs, state.rip, state.rflags)

    def describe(self, vcpu: int) -> str:
        """Return what a vCPU does."""
        return self._machine.doing(vcpu)

    def read(self, vcpu: int, address: int, size: int) -> bytes:
        """Return memory at a linear address: up to the first byte that is none."""
        memory = LinearMemory(self._machine.image.ram, self.state(vcpu))
        found = bytearray()
        while size > 0:
            count = min(size, PAGE_SIZE - address % PAGE_SIZE)
            try:
                found += memory.read(address, count)
            except LinearFault:
                break
            address, size = address + count, size - count
        return bytes(found)

    def write(self, vcpu: int, address: int, data: bytes) -> bool:
        """Store at a linear address, also where the guest may only read."""
        memory = LinearMemory(self._machine.image.ram, self.state(vcpu))
        while data:
            count = min(len(data), PAGE_SIZE - address % PAGE_SIZE)
            gpa = memory.translate(address)
            if gpa is None or not self._machine.image.ram.write(gpa, data[:count]):
                return False
            self._machine.vm.written(gpa, count)
            address, data = address + count, data[count:]
        return True

    def break_at(self, addresses: frozenset[int]) -> bool:
        """Have these linear addresses stop vCPUs; False where that cannot be."""
        if self.ended or not self._machine.pause():
            return True
        try:
            return self._machine.vm.break_at(addresses)
        except PvhError:
            return False

    def go(self) -> None:
        """Have the machine run."""
        self._machine.unpause()

    def step(self, vcpu: int) -> None:
        """Have one vCPU execute one instruction; one that sleeps or is down does not."""
        with suppress(PvhError):  # the engine cannot: nothing was executed
            self._machine.step(vcpu)
        self._stops.put(Stop(vcpu))

    def wait(self, seconds: float) -> Stop | None:
        """Return why the machine stopped; all of its vCPUs have, then."""
        try:
            stop = self._stops.get(timeout=seconds)
        except Empty:
            return None
        if not stop.ended and not self._machine.pause():
            return self.wait(10)  # the end comes, and its reason
        self._last = stop.vcpu
        return stop

    def interrupt(self) -> None:
        """Have it stop."""
        self._stops.put(Stop(self._last, _SIGINT))

    def end(self) -> None:
        """End the run."""
        self._machine.end("interrupted", "the debugger ended it")

    def monitor(self, words: list[str]) -> str:
        """Carry out a `monitor` command."""
        return say(self._machine, self._history, words)
