"""The tracker: what of the processor and memory is still as it was at entry, and who uses it.

It sees each instruction before it is executed, moves definedness as the instruction will move values, and reports a
use: where something without a defined value decides a branch, an address, a segment, a system register, or leaves the
processor. Copies, arithmetic and saving are no uses; what they give is undefined in turn.
"""

from __future__ import annotations

from pvh.conformance.monitor import origins as o
from pvh.conformance.monitor.decode import Imm, Mem, Op, Operand, Other, Reg
from pvh.conformance.monitor.shadow import DEFINED, ShadowMemory, Value
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvh.conformance.finding import Grade
    from pvh.conformance.monitor.cpu import Cpu
    from pvh.conformance.monitor.guard import Guard

_M64 = 2**64 - 1
_FIRST_PAGE = 4096  # where a null pointer with an offset leads


class Tracker:
    """State of one vCPU from its entry on.

    regs      values of the general registers, in encoding order
    status    value of the status flags, at their places in EFLAGS
    system    the bits of EFLAGS that are as at entry, DF and the system flags
    others    values of vector, debug and segment registers by name
    null      whether the last memory operand was reached through a null pointer
    op        the instruction at hand
    setter    the instruction that gave the status flags an undefined value; None: they have it from elsewhere
    done      what the kernel has set up: `gdt`, `idt`, `tr`, `ldt`, `cr3`, `fs`, `gs`, `fpu`, `mxcsr`, MSRs by number
    """

    def __init__(
        self, cpu: Cpu, memory: ShadowMemory, guard: Guard, report: Callable[[Op, str, str, Grade], None]
    ) -> None:
        self.cpu = cpu
        self.memory = memory
        self._guard = guard
        self._report = report
        self.regs: list[Value] = [(_M64, o.GPR + index) for index in range(16)]
        self.regs[3] = (_M64 ^ 0xFFFFFFFF, o.GPR + 3)
        self.status: Value = (o.STATUS_FLAGS, o.FLAGS)
        self.system = o.DF | o.SYSTEM_FLAGS
        self.others: dict[str, Value] = {}
        self.done: set[str | int] = set()
        self.told: set[str] = set()
        self.polls: dict[int, int] = {}
        self.repeating = -1
        self.null = False
        self.op: Op | None = None
        self.setter: Op | None = None

    # Reports.

    def use(self, op: Op, value: Value, how: str) -> None:
        """Report a use of a value, once for each clause; how says what for, such as `decides a branch`."""
        origin = o.named(value[1], value[0])
        lack = ", which has no defined value," if value[1] < o.NULL_MODLIST else ","
        self.violate(op, origin.clause, f"{origin.name}{lack} {how}")

    def violate(self, op: Op, clause: str, what: str) -> None:
        """Report that a clause is violated, once."""
        if clause not in self.told:
            self.told.add(clause)
            self._report(op, clause, what, "violation")

    def decide(self, op: Op, flags: Value, what: str) -> None:
        """Report that undefined flags decide something; where a comparison gave them, that is the instruction."""
        if flags[0]:
            by = self.setter
            where = f"{what} at {op.address:#x}" if by else what
            self.use(by or op, flags, f"decides {where}")

    def saved(self, op: Op, value: Value) -> None:
        """Note that a register is saved that the kernel has not written."""
        mask, origin = value
        if mask and o.GPR <= origin <= o.SYSTEM_FLAG:
            named = o.named(origin, mask)
            key = f"saved {named.clause}"
            if key not in self.told:
                self.told.add(key)
                what = f"{named.name} is saved before the kernel has written it"
                self._report(op, named.clause, what, "note")

    # Registers and memory.

    def read(self, op: Op, operand: Operand) -> Value:
        """Return an operand's value."""
        if isinstance(operand, Reg):
            return self.register(operand)
        if isinstance(operand, Mem):
            self.null = False
            value = self.load(self.linear(op, operand), operand.size)
            return DEFINED if self.null else value  # what a null pointer leads to is no second violation
        if isinstance(operand, Other):
            return self.others.get(operand.name, DEFINED)
        return DEFINED

    def register(self, reg: Reg) -> Value:
        """Return the value of a general register, or of the part."""
        mask, origin = self.regs[reg.index]
        if not origin:
            return DEFINED
        part = mask >> reg.shift & (1 << reg.width) - 1
        return (part, origin) if part or (not mask and reg.width >= 32) else DEFINED

    def write(self, op: Op, operand: Operand, value: Value) -> None:
        """Set an operand's value."""
        if isinstance(operand, Reg):
            self.set_register(operand, value)
        elif isinstance(operand, Mem):
            self.store(op, self.linear(op, operand), operand.size, value)
        elif isinstance(operand, Other):
            self.others[operand.name] = value

    def set_register(self, reg: Reg, value: Value) -> None:
        """Set the value of a general register, or of the part; writing 32 bits writes all 64."""
        mask, origin = value
        if reg.width >= 32:
            self.regs[reg.index] = value
            return
        old, old_origin = self.regs[reg.index]
        if not old and not mask:
            self.regs[reg.index] = DEFINED
            return
        field = (1 << reg.width) - 1
        new = old & ~(field << reg.shift) | (mask & field) << reg.shift
        self.regs[reg.index] = (new, origin if mask else old_origin) if new else DEFINED

    def concrete(self, op: Op, operand: Operand) -> int:
        """Return what an operand holds; of memory that is none, 0."""
        if isinstance(operand, Imm):
            return operand.value & _M64
        if isinstance(operand, Reg):
            return self.cpu.gpr(operand.index) >> operand.shift & (1 << operand.width) - 1
        if isinstance(operand, Mem):
            return int.from_bytes(self.cpu.memory(self.linear(op, operand), operand.size), "little")
        return 0

    def linear(self, op: Op, mem: Mem) -> int:
        """Return the linear address of a memory operand; a register in it is used."""
        offset = self.offset(op, mem)
        if mem.segment in ("fs", "gs") and mem.segment not in self.done:
            self.use(op, (1, o.FS_GS), f"is the segment of an address ({mem.segment.upper()})")
        base = self.cpu.bases.get(mem.segment or "ds", 0) if op.bits != 64 or mem.segment in ("fs", "gs") else 0
        return offset + base & (_M64 if op.bits == 64 else 0xFFFFFFFF)

    def offset(self, op: Op, mem: Mem) -> int:
        """Return the offset of a memory operand in its segment; a register in it is used."""
        full = (1 << mem.width) - 1
        offset, null = mem.disp, 0
        for index, scale in mem.parts:
            mask, origin = self.regs[index]
            if mask & full:
                self.use(op, (mask & full, origin), "is part of an address")
            elif origin >= o.NULL_MODLIST:
                null = origin
            offset += self.cpu.gpr(index) * scale
        offset &= full
        if null and offset < _FIRST_PAGE:
            self.use(op, (0, null), "is followed")
            self.null = True
        return offset

    def load(self, linear: int, size: int) -> Value:
        """Return the value of memory; what is no RAM is defined."""
        if (linear & 0xFFF) + size > 4096:
            return self._load_across(linear, size)
        gpa = self.cpu.physical(linear)
        if gpa is None:
            return DEFINED
        self._guard.loaded(gpa, size)
        return self.memory.load(gpa, size)

    def _load_across(self, linear: int, size: int) -> Value:
        first = 4096 - (linear & 0xFFF)
        (low, low_origin), (high, high_origin) = self.load(linear, first), self.load(linear + first, size - first)
        mask = low | high << 8 * first
        return (mask, low_origin if low else high_origin) if mask else DEFINED

    def store(self, op: Op, linear: int, size: int, value: Value) -> None:
        """Set the value of memory."""
        while size > 0:
            count = min(size, 4096 - (linear & 0xFFF))
            gpa = self.cpu.physical(linear)
            if gpa is not None:
                self._overwrite(op, gpa, count)
                part = value[0] & (1 << 8 * count) - 1
                whole = not value[0]
                self.memory.store(gpa, count, (part, value[1]) if part or whole else DEFINED)
            value = value[0] >> 8 * count, value[1]
            linear, size = linear + count, size - count

    def fill(self, op: Op, linear: int, size: int, value: Value = DEFINED, element: int = 1) -> None:
        """Set the value of memory, element by element of that many bytes, on any number of pages."""
        mask, origin = value
        pattern = mask.to_bytes(element, "little") * (4096 // element + 1)
        done = 0
        while done < size:
            count = min(size - done, 4096 - (linear + done & 0xFFF))
            phase = done % element  # where a page ends inside an element
            part = int.from_bytes(pattern[phase : phase + count], "little") if mask else 0
            self.store(op, linear + done, count, (part, origin) if part else DEFINED)
            done += count

    def copy(self, op: Op, source: int, target: int, size: int) -> None:
        """Move values within one page to within another."""
        start, end = self.cpu.physical(source), self.cpu.physical(target)
        if end is None:
            return
        if start is None:
            self.store(op, target, size, DEFINED)
            return
        self._guard.loaded(start, size)
        self._overwrite(op, end, size)
        self.memory.copy(start, end, size)

    def _overwrite(self, op: Op, gpa: int, size: int) -> None:
        victim = self._guard.stored(gpa, size)
        if victim:
            self.violate(op, "memory.placement", f"{victim} is overwritten before the kernel has read where it is")

    # Flags.

    def flag(self, bits: int) -> Value:
        """Return the value of some status flags."""
        mask = self.status[0] & bits
        return (mask, self.status[1]) if mask else DEFINED

    def set_flags(self, bits: int, value: Value) -> None:
        """Have status flags defined or undefined together."""
        self.set_status(bits, bits if value[0] else 0, value)

    def set_status(self, bits: int, mask: int, cause: Value) -> None:
        """Set the value of some status flags: what of them is undefined, and by which undefined bits."""
        old, old_origin = self.status
        origin = o.narrowed(cause[1], cause[0])
        if mask:
            self.setter = self.op
        kept = old & ~bits
        self.status = (kept | mask, origin if mask else old_origin) if kept | mask else DEFINED

    def image(self) -> Value:
        """Return the value that PUSHF stores."""
        mask, origin = self.status
        return (mask | self.system, origin if mask else o.FLAGS) if mask | self.system else DEFINED

    def set_image(self, op: Op, value: Value) -> None:
        """Take a value into EFLAGS, as POPF does."""
        mask, origin = value
        if mask & ~(o.STATUS_FLAGS | o.DF | o.SYSTEM_FLAGS) & 0x3F7FD7 & ~2:
            self.use(op, value, "is loaded into EFLAGS")
        status = mask & o.STATUS_FLAGS
        self.status = (status, origin) if status else DEFINED
        self.setter = None
        self.system = mask & (o.DF | o.SYSTEM_FLAGS)

    # The stack.

    def stack(self, op: Op, push: int) -> int:
        """Return the linear address of the stack's top; with push, of the place that many bytes below it."""
        mask, origin = self.regs[4]
        full = _M64 if op.bits == 64 else 0xFFFFFFFF
        if mask & full:
            self.use(op, (mask & full, origin), "is the address of a stack")
        base = 0 if op.bits == 64 else self.cpu.bases.get("ss", 0)
        return self.cpu.gpr(4) - push + base & full

    def push(self, op: Op, size: int, value: Value) -> None:
        """Move a value to the stack."""
        self.store(op, self.stack(op, size), size, value)

    def pop(self, op: Op, size: int, skipped: int = 0) -> Value:
        """Return a value from the stack, so many bytes above its top."""
        return self.load(self.stack(op, 0) + skipped, size)
