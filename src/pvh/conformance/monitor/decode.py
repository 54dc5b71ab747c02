"""Instructions as the tracker takes them: operands, the flags they read and write, decoded once an address."""

from __future__ import annotations

from pvh.conformance.monitor.origins import DF, STATUS_FLAGS
from pvh.hints import Any
from pvh.record import dataclass, field

_NAMES = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
_WIDTHS = (("", 64), ("d", 32), ("w", 16), ("b", 8))
# By name: index, lowest bit, width in bits.
_GPRS: dict[str, tuple[int, int, int]] = {
    **{f"r{name}": (index, 0, 64) for index, name in enumerate(_NAMES)},
    **{f"e{name}": (index, 0, 32) for index, name in enumerate(_NAMES)},
    **{name: (index, 0, 16) for index, name in enumerate(_NAMES)},
    **{f"{name[0]}l": (index, 0, 8) for index, name in enumerate(_NAMES[:4])},
    **{f"{name[0]}h": (index, 8, 8) for index, name in enumerate(_NAMES[:4])},
    **{f"{name}l": (index, 0, 8) for index, name in enumerate(_NAMES) if index >= 4},
    **{f"r{index}{end}": (index, 0, width) for index in range(8, 16) for end, width in _WIDTHS},
}

_CALLED = {place: name.upper() for name, place in _GPRS.items()}

_FLAG_BITS = {"CF": 0, "PF": 2, "AF": 4, "ZF": 6, "SF": 7, "DF": 10, "OF": 11}


@dataclass(frozen=True, slots=True)
class Reg:
    """A general register or part of one: index in encoding order, lowest bit, width in bits."""

    index: int
    shift: int
    width: int

    def __str__(self) -> str:
        return _CALLED[self.index, self.shift, self.width]


@dataclass(frozen=True, slots=True)
class Imm:
    """A constant."""

    value: int


@dataclass(frozen=True, slots=True)
class Mem:
    """A memory operand: parts are (index of register, scale); size in bytes; width of the address in bits."""

    segment: str
    parts: tuple[tuple[int, int], ...]
    disp: int
    size: int
    width: int


@dataclass(frozen=True, slots=True)
class Other:
    """A register of another kind, by name: `ds`, `cr0`, `dr7`, `xmm0`, `st(0)`; width in bits."""

    name: str
    width: int


Operand = Reg | Imm | Mem | Other


@dataclass(frozen=True, slots=True)
class Op:
    """One instruction.

    name      mnemonic without prefixes
    repeat    "rep", "repe", "repne" or ""
    reads     operands and implicit registers that are read, addresses and flags apart; writes likewise
    tests     flags it reads; sets: status flags it leaves with a value of its own
    """

    address: int
    code: bytes
    text: str
    name: str
    repeat: str
    operands: tuple[Operand, ...]
    reads: tuple[Operand, ...]
    writes: tuple[Operand, ...]
    tests: int
    sets: int
    bits: int
    groups: frozenset[str] = field(default=frozenset())


class Decoder:
    """Decodes for one code width at a time. Needs capstone."""

    def __init__(self) -> None:
        import capstone
        from capstone import x86

        self._lib: Any = capstone
        self._modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
        self._decoders: dict[int, Any] = {}
        self._tests = self._flags(x86, ("TEST",))
        self._sets = self._flags(x86, ("MODIFY", "RESET", "SET", "UNDEFINED"))

    @staticmethod
    def _flags(x86: Any, verbs: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
        """Return (capstone's bit, EFLAGS bit) of each flag that it has for these verbs."""
        names = (
            (getattr(x86, f"X86_EFLAGS_{verb}_{flag}", 0), 1 << at) for verb in verbs for flag, at in _FLAG_BITS.items()
        )
        return tuple((theirs, ours) for theirs, ours in names if theirs)

    def decode(self, code: bytes, address: int, bits: int) -> Op | None:
        """Return the instruction, None where there is none."""
        decoder = self._decoders.get(bits)
        if decoder is None:
            decoder = self._decoders[bits] = self._lib.Cs(self._lib.CS_ARCH_X86, self._modes[bits])
            decoder.detail = True
        for found in decoder.disasm(code, address, 1):
            return self._op(found, bits)
        return None

    def _op(self, found: Any, bits: int) -> Op:
        words = found.mnemonic.split()
        name = words[-1]
        repeat = next((word for word in words[:-1] if word.startswith("rep")), "")
        operands: list[Operand] = [self._operand(found, operand, bits) for operand in found.operands]
        rows = list(zip(operands, found.operands, strict=True))
        reads: list[Operand] = [op for op, row in rows if row.access & 1 and not isinstance(op, Imm)]
        writes: list[Operand] = [op for op, row in rows if row.access & 2]
        groups = frozenset(found.group_name(group) for group in found.groups)
        reads += self._implicit(found, found.regs_read)
        writes += self._implicit(found, found.regs_write)
        is_fpu = "fpu" in groups  # whose flags these are not
        tests = 0 if is_fpu else sum({ours for theirs, ours in self._tests if found.eflags & theirs})
        sets = 0 if is_fpu else sum({ours for theirs, ours in self._sets if found.eflags & theirs})
        text = f"{found.mnemonic} {found.op_str}".rstrip()
        return Op(found.address, bytes(found.bytes), text, name, repeat, tuple(operands), tuple(reads), tuple(writes),
                  tests & (STATUS_FLAGS | DF), sets & STATUS_FLAGS, bits, groups)  # fmt: skip

    def _operand(self, found: Any, row: Any, bits: int) -> Operand:
        if row.type == self._lib.x86.X86_OP_REG:
            return _register(found.reg_name(row.reg), 8 * row.size)
        if row.type == self._lib.x86.X86_OP_IMM:
            return Imm(row.imm)
        mem = row.mem
        parts: list[tuple[int, int]] = []
        width = bits if found.addr_size == 0 else 8 * found.addr_size
        disp = mem.disp
        for number, scale in ((mem.base, 1), (mem.index, mem.scale)):
            name = found.reg_name(number) if number else ""
            if name in _GPRS:
                parts.append((_GPRS[name][0], scale))
            elif name == "rip":
                disp += found.address + found.size
        segment = found.reg_name(mem.segment) if mem.segment else ""
        return Mem(segment, tuple(parts), disp, row.size, width)

    def _implicit(self, found: Any, numbers: Any) -> list[Operand]:
        names = (found.reg_name(number) for number in numbers)
        return [Reg(*_GPRS[name]) for name in names if name in _GPRS]


def _register(name: str, width: int) -> Operand:
    return Reg(*_GPRS[name]) if name in _GPRS else Other(name, width)


def register(name: str) -> Reg:
    """Return a general register by name."""
    return Reg(*_GPRS[name])
