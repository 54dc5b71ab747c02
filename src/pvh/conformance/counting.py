"""The emulator counting instructions, one by one, for a milestone that is a number of them."""

from __future__ import annotations

from pvh.engines.emulator.cpuid import CpuidLookup
from pvh.engines.emulator.decode import decode
from pvh.engines.emulator.engine import EmulatorEngine
from pvh.engines.emulator.exceptions import HARDWARE, SOFTWARE, Event
from pvh.engines.emulator.libunicorn import HOOK_CODE, CodeHook
from pvh.engines.emulator.vcpu import EmulatorVcpu
from pvh.engines.emulator.vm import EmulatorVm
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvh.build.image import Image
    from pvh.engines.engine import CpuidTable

_LONGEST = 15  # bytes of an instruction
# Jcc, RETs and far calls, LOOPs and JCXZ, CALL and JMPs; 0F is Jcc's other form. What else 0F and FF begin
# never comes twice in a row.
_JUMPS = (*range(0x70, 0x80), 0x0F, 0x9A, 0xC2, 0xC3, 0xCA, 0xCB, 0xCF, *range(0xE0, 0xE4), *range(0xE8, 0xEC), 0xFF)


class CountedEngine(EmulatorEngine):
    """An emulator that tells when a guest's first processor has executed one of some numbers of instructions.

    One counts that is over: never if it faults, once if it is a repeated one.
    tell  is given the number, in a hook: so it may ask for an end, but not do much
    """

    def __init__(self, engine: EmulatorEngine, numbers: frozenset[int], tell: Callable[[int], None]) -> None:
        vars(self).update(vars(engine))  # it is that engine, but for the guests it makes
        self._numbers = numbers
        self._tell = tell
        self._counter: _Counter | None = None

    @property
    def counted(self) -> int:
        """How many it executed, of the last guest that was made, once that has ended."""
        return self._counter.begun if self._counter else 0

    def open(self, image: Image, cpuid: tuple[CpuidTable, ...]) -> EmulatorVm:
        """Make a guest of an image. Raises EngineError when the host refuses."""
        vm = _CountedVm(image, cpuid, self.layout, self.clock)
        self._counter = vm.instructions = _Counter(vm, self._numbers, self._tell)
        return vm


class _CountedVm(EmulatorVm):
    instructions: _Counter | None = None

    def vcpu(self, index: int, table: CpuidTable) -> EmulatorVcpu:
        """Make a processor."""
        return super().vcpu(index, table) if index else _CountedVcpu(self, index, table)


class _CountedVcpu(EmulatorVcpu):
    """A processor whose exceptions and interrupts the counter hears of."""

    def __init__(self, vm: _CountedVm, index: int, table: CpuidTable) -> None:
        super().__init__(vm, index, CpuidLookup(table))
        self._vm = vm

    def deliver(self, event: Event, length: int = 0) -> None:
        """Enter the guest's handler for an event."""
        if self._vm.instructions and event.source != SOFTWARE:
            self._vm.instructions.interrupted(self.registers.linear_rip, faults=event.source == HARDWARE)
        super().deliver(event, length)


class _Counter:
    """Of a guest's first processor. begun: those that were, without those that were not completed.

    The library's hook is called before each instruction, and again for each round of a repeated one, or where a stop
    has one executed anew. Only a jump comes twice in a row of its own accord.
    """

    def __init__(self, vm: _CountedVm, numbers: frozenset[int], tell: Callable[[int], None]) -> None:
        self.begun = 0
        self._vm = vm
        self._vcpu = vm.vcpus[0]
        self._numbers = numbers
        self._tell = tell
        self._last = self._looked_at = -1
        self._jumps = False
        vm.processor.handle.hook(HOOK_CODE, CodeHook(self._on_code))
        vm.processor.handle.flush_code()  # the first block has been translated without the hook

    def _on_code(self, _uc: int, address: int, _size: int, _data: int) -> None:
        if not self._vm.processor.is_occupied_by(self._vcpu):
            return
        if address == self._last and not self._is_jump(address):
            return
        if self.begun in self._numbers:
            self._tell(self.begun)
        self._last = address
        self.begun += 1

    def interrupted(self, rip: int, *, faults: bool) -> None:
        """The guest's handler is entered with a linear RIP: of an instruction that is not over, or of the next."""
        if rip == self._last and (faults or not self._is_jump(rip)):
            self.begun -= 1
            self._last = -1

    def _is_jump(self, address: int) -> bool:
        if address != self._looked_at:
            self._looked_at = address
            self._vcpu.registers.save()
            code = decode(self._vcpu.memory.peek(address, _LONGEST), self._vcpu.registers.bits).code
            self._jumps = code[:1] != b"" and code[0] in _JUMPS
        return self._jumps
