"""One guest, watched: from the library's hook to the tracker, and from its reports to findings."""

from __future__ import annotations

from pvh.conformance.finding import Finding, Instruction
from pvh.conformance.monitor.cpu import Cpu
from pvh.conformance.monitor.decode import Decoder, Op
from pvh.conformance.monitor.guard import Guard
from pvh.conformance.monitor.origins import NT
from pvh.conformance.monitor.rules import rule
from pvh.conformance.monitor.shadow import ShadowMemory
from pvh.conformance.monitor.tracker import Tracker
from pvh.diagnosis import Places
from pvh.engines.emulator.libunicorn import HOOK_CODE, CodeHook
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvh.build.image import Image
    from pvh.conformance.finding import Grade
    from pvh.conformance.monitor.alu import Rule
    from pvh.conformance.monitor.entry_memory import EntryMemory
    from pvh.engines.emulator.vm import EmulatorVm

_LONGEST = 15  # bytes of an instruction
_LINE = 6  # translated instructions are forgotten by lines of 64 bytes


class Watch:
    """The monitor of a guest's first processor, for its first `limit` instructions. count is those it has seen."""

    def __init__(self, vm: EmulatorVm, image: Image, memory: EntryMemory, limit: int, over: Callable[[], None]) -> None:
        self._image = image
        self._processor = vm.processor
        self._vcpu = vm.vcpus[0]
        self._limit = limit
        self._tell = over
        self._shadow = ShadowMemory(memory.stretches)
        self._cpu = Cpu(vm)
        self._guard = Guard(memory.guarded, self._changed, memory.fields, lambda: vm.processor.stopper.executed)
        self._tracker = Tracker(self._cpu, self._shadow, self._guard, self._report)
        self._decoder = Decoder()
        self._ops: dict[int, tuple[Rule, Op] | None] = {}
        self._lines: set[int] = set()
        self._findings: list[Finding] = []
        self._failure: BaseException | None = None
        self._last: Op | None = None
        self._blamed: Op | None = None
        self._over = False
        self.count = 0
        image.ram.watch = self._written
        self._hook = vm.processor.handle.hook(HOOK_CODE, CodeHook(self._on_code))
        vm.processor.handle.flush_code()  # the first block has been translated without the hook

    def close(self) -> None:
        """Give everything back."""
        self._over = True
        self._image.ram.watch = None
        self._cpu.close()

    def findings(self) -> tuple[Finding, ...]:
        """Return what was found. Raises what went wrong in a hook, from which nothing can be raised."""
        if self._failure:
            raise self._failure
        return tuple(self._findings)

    @property
    def read(self) -> dict[str, int]:
        """What was read of start_info and what it leads to, and how many blocks of code had been executed then."""
        return self._guard.read

    def event(self, vector: int, *, raised: bool) -> None:
        """The guest's handler is entered, which clears NT; for an exception that is raised, CR2 has a value then."""
        self._cpu.stale = True
        self._tracker.system &= ~NT
        if not raised:
            return
        self._tracker.done.add("cr2")
        if not self._over and self._last and "idt" not in self._tracker.done and self._blamed is not self._last:
            self._tracker.violate(self._last, "idt", f"exception {vector} is raised here, before LIDT")

    def _on_code(self, _uc: int, address: int, _size: int, _data: int) -> None:
        if self._over:
            return
        try:
            self._step(address)
        except BaseException as failure:  # noqa: BLE001 - no exception may leave a hook: it is kept, and raised at the end
            self._failure = failure
            self._finish()

    def _step(self, address: int) -> None:
        if self.count >= self._limit or not self._processor.is_occupied_by(self._vcpu):
            self._finish()
            return
        if self._cpu.stale:
            self._cpu.refresh()
            self._ops.clear()
        found = self._ops.get(address)
        if found is None:
            found = self._decode(address)
            if found is None:
                return
        act, op = found
        if address != self._tracker.repeating:
            self.count += 1
            self._tracker.repeating = -1
        self._tracker.op = self._last = op
        act(self._tracker, op)

    def _decode(self, address: int) -> tuple[Rule, Op] | None:
        """Decode an instruction once; None where there is none, which the processor will say too."""
        code = self._cpu.memory(address, _LONGEST)
        op = self._decoder.decode(code, address, self._cpu.bits)
        if op is None:
            return None
        for linear in (address, address + len(op.code) - 1):
            gpa = self._cpu.physical(linear)
            if gpa is not None:
                self._lines.add(gpa >> _LINE)
                self._cpu.executed.add(gpa >> 12)
        found = self._ops[address] = rule(op), op
        return found

    def _changed(self, gpa: int, size: int) -> None:
        """Memory changes: forget what was decoded if it lies there."""
        first, last = gpa >> _LINE, gpa + size - 1 >> _LINE
        if not self._lines.isdisjoint((first, last) if last - first < 2 else range(first, last + 1)):
            self._lines.clear()
            self._ops.clear()

    def _written(self, gpa: int, size: int) -> None:
        """The host looks at guest memory, and may write: what Xen or a device gives is defined."""
        self._shadow.define(gpa, size)
        self._changed(gpa, size)

    def _finish(self) -> None:
        """Have the guest go on unwatched."""
        self._over = True
        self._image.ram.watch = None
        self._processor.handle.unhook(self._hook)
        self._processor.code_changed()
        self._tell()

    def _report(self, op: Op, clause: str, what: str, grade: Grade) -> None:
        state = self._cpu.state
        assert state, "the processor was looked up before its first instruction"
        symbol = Places(self._image, state).symbol(op.address)
        at = Instruction(op.address, symbol, op.code, op.text)
        self._findings.append(Finding(clause, what, grade, "monitor", at))
        if grade == "violation":
            self._blamed = op
