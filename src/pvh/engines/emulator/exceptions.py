"""From an event to the guest's handler: which exception results, and the way through IVT or IDT.

The library stops at every exception, interrupt instruction and interrupt; delivery is the engine's. Sources: Intel SDM
vol. 3 chapter 6 (protected mode 6.12, error codes 6.13, 64-bit mode 6.14, double faults 6.15) and 21.1.4 (real mode);
AMD APM vol. 2 chapter 8.
"""

from __future__ import annotations

from pvh.abi import x86
from pvh.build.cpu_state import SegmentRegister
from pvh.engines.emulator import descriptors
from pvh.engines.emulator.paging import GuestFault, LinearMemory
from pvh.engines.emulator.registers import CS, DS, ES, FS, GS, RSP, SS, Registers
from pvh.record import dataclass

HARDWARE = 0
SOFTWARE = 1
EXTERNAL = 2
"""Where an event comes from: an exception, INT n/INT3/INTO, an interrupt or ICEBP."""

_WITH_ERROR = frozenset({x86.DF, x86.TS, x86.NP, x86.SS, x86.GP, x86.PF, x86.AC})
_CONTRIBUTORY = frozenset({x86.DE, x86.TS, x86.NP, x86.SS, x86.GP})
# Not reported before an instruction, and therefore pushed with RF clear (SDM vol. 3, 17.3.1.1).
_TRAPS_AND_ABORTS = frozenset({x86.DB, x86.DF, x86.MC})

_TASK_GATE = 5
_LEGACY_GATES = frozenset({6, 7, 14, 15})
_LONG_GATES = frozenset({14, 15})
_IDT = 2


class Unsupported(Exception):
    """The guest did something legal that this engine cannot do; the text says what."""


@dataclass(frozen=True, slots=True)
class Event:
    """An exception or interrupt to deliver. error is None where none is pushed; cr2 is a page fault's address."""

    vector: int
    error: int | None = None
    source: int = HARDWARE
    cr2: int | None = None


@dataclass(frozen=True, slots=True)
class _Gate:
    selector: int
    offset: int
    kind: int
    ist: int = 0


def fault(vector: int, error: int | None = 0, cr2: int | None = None) -> Event:
    """Make the event of a processor exception; error counts only for vectors that have one."""
    return Event(vector, (error or 0) if vector in _WITH_ERROR else None, HARDWARE, cr2)


def combine(first: Event, second: GuestFault) -> Event | None:
    """Return what follows from a fault while an event is delivered; None is shutdown (SDM vol. 3, tab. 6-5)."""
    if first.source == HARDWARE:
        if first.vector == x86.DF:
            return None
        page_fault = first.vector == x86.PF
        if (page_fault or first.vector in _CONTRIBUTORY) and second.vector in _CONTRIBUTORY:
            return fault(x86.DF)
        if page_fault and second.vector == x86.PF:
            return fault(x86.DF)
    return fault(second.vector, second.error, second.cr2)


def deliver(registers: Registers, memory: LinearMemory, event: Event, rip: int, after: int) -> int | None:
    """Enter the guest's handler for an event; return the new RIP, or None for a triple fault.

    after is what the event pushes as RIP; a fault on the way there pushes rip. The registers are changed in the
    snapshot and not committed. Raises Unsupported for a task gate.
    """
    current: Event | None = event
    while current is not None:
        if current.cr2 is not None:
            registers.set_cr2(current.cr2)
        try:
            return _Delivery(registers, memory, current, after).run()
        except GuestFault as second:
            if second.cr2 is not None:
                registers.set_cr2(second.cr2)
            current = combine(current, second)
            after = rip
    return None


class _Delivery:
    """One attempt. Nothing but memory below the stack pointer is changed when it raises GuestFault."""

    def __init__(self, registers: Registers, memory: LinearMemory, event: Event, rip: int) -> None:
        self._registers = registers
        self._memory = memory
        self._event = event
        self._rip = rip
        self._external = 0 if event.source == SOFTWARE else 1
        self._cpl = registers.cpl
        flags = registers.flags
        if event.source == HARDWARE and event.vector not in _TRAPS_AND_ABORTS:
            flags |= x86.RFLAGS_RF
        self._flags = flags

    def run(self) -> int:
        if not self._registers.protected:
            return self._real_mode()
        return self._long_mode() if self._registers.long_mode else self._protected_mode()

    def _real_mode(self) -> int:
        registers, memory = self._registers, self._memory
        entry = self._event.vector * 4
        if entry + 3 > registers.idtr.limit:
            raise GuestFault(x86.GP, 0)
        target = memory.read_int(registers.idtr.base + entry, 4)
        cs, ss = registers.segment(CS), registers.segment(SS)
        sp = registers.gpr(RSP)
        for word in (self._flags & ~x86.RFLAGS_RF, cs.selector, self._rip):
            sp = sp & ~0xFFFF | sp - 2 & 0xFFFF
            memory.write(ss.base + (sp & 0xFFFF), (word & 0xFFFF).to_bytes(2, "little"))
        registers.set_gpr(RSP, sp)
        selector = target >> 16
        registers.set_segment(CS, SegmentRegister(selector, selector << 4, cs.limit, cs.attributes))
        registers.flags = registers.flags & ~(x86.RFLAGS_IF | x86.RFLAGS_TF | x86.RFLAGS_AC | x86.RFLAGS_RF)
        registers.set_mode(0)
        return target & 0xFFFF

    def _gate(self) -> _Gate:
        """Read and check the IDT entry (SDM vol. 3, 6.11 and 6.14.1)."""
        registers = self._registers
        size, kinds = (16, _LONG_GATES) if registers.long_mode else (8, _LEGACY_GATES)
        error = self._event.vector * 8 | _IDT | self._external
        at = self._event.vector * size
        if at + size - 1 > registers.idtr.limit:
            raise GuestFault(x86.GP, error)
        raw = self._memory.read_int(registers.idtr.base + at, size)
        kind = raw >> 40 & 0x1F
        if kind == _TASK_GATE and not registers.long_mode:
            raise Unsupported(f"vector {self._event.vector} goes through a task gate")
        if kind not in kinds or (self._event.source == SOFTWARE and raw >> 45 & 3 < self._cpl):
            raise GuestFault(x86.GP, error)
        if not raw >> 47 & 1:
            raise GuestFault(x86.NP, error)
        offset = raw & 0xFFFF | (raw >> 32 & 0xFFFF0000 if kind & 8 else 0)
        if registers.long_mode:
            return _Gate(raw >> 16 & 0xFFFF, offset | (raw >> 64 & 0xFFFFFFFF) << 32, kind, raw >> 32 & 7)
        return _Gate(raw >> 16 & 0xFFFF, offset, kind)

    def _protected_mode(self) -> int:
        registers, memory = self._registers, self._memory
        gate = self._gate()
        code, new_cpl = descriptors.handler_code(registers, memory, gate.selector, self._external)
        virtual = bool(self._flags & x86.RFLAGS_VM)
        if virtual and new_cpl != 0:
            raise GuestFault(x86.GP, gate.selector & 0xFFFC | self._external)
        wide = 4 if gate.kind & 8 else 2
        ss, esp = registers.segment(SS), registers.gpr(RSP)
        frame = [self._flags, registers.segment(CS).selector, self._rip]
        if self._event.error is not None:
            frame.append(self._event.error)
        if new_cpl < self._cpl:
            frame[:0] = [ss.selector, esp]
            if virtual:
                frame[:0] = [registers.segment(index).selector for index in (GS, FS, DS, ES)]
            ss, esp = self._inner_stack(new_cpl)
        esp = self._push(ss, esp, frame, wide)
        if virtual:
            for index in (GS, FS, DS, ES):
                registers.set_segment(index, SegmentRegister())
        self._enter(code, ss, esp, gate, new_cpl)
        return gate.offset

    def _inner_stack(self, cpl: int) -> tuple[SegmentRegister, int]:
        """Return SS and ESP of a privilege level from the 32- or 16-bit TSS (SDM vol. 3, 7.2.1 and 7.6)."""
        tr, memory = self._registers.tr, self._memory
        wide = 4 if tr.attributes & 8 else 2
        at = (4 + 8 * cpl) if wide == 4 else (2 + 4 * cpl)
        if at + wide + 1 > tr.limit:
            raise GuestFault(x86.TS, tr.selector & 0xFFFC | self._external)
        esp = memory.read_int(tr.base + at, wide)
        selector = memory.read_int(tr.base + at + wide, 2)
        return descriptors.stack(self._registers, memory, selector, cpl, self._external), esp

    def _push(self, ss: SegmentRegister, esp: int, frame: list[int], wide: int) -> int:
        """Store a frame of legacy mode; return the new stack pointer."""
        mask = 0xFFFFFFFF if ss.attributes & x86.AR_DB else 0xFFFF
        size = wide * len(frame)
        low = (esp & mask) - size
        down = ss.attributes & 4
        if low & mask != low or (low <= ss.limit if down else (esp - 1 & mask) > ss.limit):
            raise GuestFault(x86.SS, self._external)
        self._store(ss.base + low & 0xFFFFFFFF, frame, wide)
        return esp & ~mask | low

    def _store(self, address: int, frame: list[int], wide: int) -> None:
        """Write a frame that ends at address; on a fault, CR2 is that of the first push that failed."""
        mask = (1 << 8 * wide) - 1
        try:
            self._memory.write(address, b"".join((value & mask).to_bytes(wide, "little") for value in reversed(frame)))
        except GuestFault:
            for index in reversed(range(len(frame))):
                self._memory.translate(address + wide * index, write=True)
            raise

    def _long_mode(self) -> int:
        registers, memory = self._registers, self._memory
        gate = self._gate()
        code, new_cpl = descriptors.handler_code(registers, memory, gate.selector, self._external)
        if not _canonical(gate.offset):
            raise GuestFault(x86.GP, self._external)
        ss, old_rsp = registers.segment(SS), registers.gpr(RSP)
        rsp = old_rsp
        if gate.ist or new_cpl < self._cpl:
            rsp = self._long_stack(0x24 + 8 * (gate.ist - 1) if gate.ist else 4 + 8 * new_cpl)
        frame = [ss.selector, old_rsp, self._flags, registers.segment(CS).selector, self._rip]
        if self._event.error is not None:
            frame.append(self._event.error)
        rsp = (rsp & ~15) - 8 * len(frame)
        if not _canonical(rsp) or not _canonical(rsp + 8 * len(frame) - 1):
            raise GuestFault(x86.SS, self._external)
        self._store(rsp, frame, 8)
        if new_cpl != self._cpl:
            ss = SegmentRegister(new_cpl, 0, 0, new_cpl << 5)
        self._enter(code, ss, rsp, gate, new_cpl)
        return gate.offset

    def _long_stack(self, at: int) -> int:
        tr = self._registers.tr
        if at + 7 > tr.limit:
            raise GuestFault(x86.TS, tr.selector & 0xFFFC | self._external)
        return self._memory.read_int(tr.base + at, 8)

    def _enter(self, code: SegmentRegister, ss: SegmentRegister, rsp: int, gate: _Gate, cpl: int) -> None:
        registers = self._registers
        registers.set_segment(CS, code)
        registers.set_segment(SS, ss)
        registers.set_gpr(RSP, rsp)
        cleared = x86.RFLAGS_TF | x86.RFLAGS_NT | x86.RFLAGS_RF | x86.RFLAGS_VM
        if not gate.kind & 1:
            cleared |= x86.RFLAGS_IF
        registers.flags = registers.flags & ~cleared
        registers.set_mode(cpl)


def _canonical(address: int) -> bool:
    return not (address + (1 << 47)) >> 48 & 0xFFFF
