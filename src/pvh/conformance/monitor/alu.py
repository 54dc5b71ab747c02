"""How definedness moves through data instructions. The rule of a mnemonic is RULES[mnemonic], of the rest, `general`.

Bit by bit where kernels need it: what AND, OR, TEST and shifts leave of an undefined operand is known. Two operands of
one origin with the same bits undefined are taken for the same unknown: their difference is defined. That makes
`xor %eax, %eax` a definition, and lets a kernel look for CPUID by changing EFLAGS.ID, whatever EFLAGS was.
"""

from __future__ import annotations

from pvh.conformance.monitor import origins as o
from pvh.conformance.monitor.decode import Imm, Mem, Op, Operand, Other, Reg
from pvh.conformance.monitor.shadow import DEFINED, Value, join
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvh.conformance.monitor.tracker import Tracker

    Rule = Callable[[Tracker, Op], None]

_ZF = 1 << 6
_CF = 1 << 0
_OUT_FLAGS = _CF | 1 << 11


def width(operand: Operand) -> int:
    """Return an operand's width in bits."""
    if isinstance(operand, Mem):
        return 8 * operand.size
    return 64 if isinstance(operand, Imm) else operand.width


def general(t: Tracker, op: Op) -> None:
    """Every result is undefined where anything read is."""
    value = join(*(t.read(op, operand) for operand in op.reads), t.flag(op.tests & o.STATUS_FLAGS))
    if _is_own_difference(op):
        value = DEFINED
    for operand in op.writes:
        full = (1 << width(operand)) - 1
        t.write(op, operand, (full, value[1]) if value[0] else DEFINED)
    t.set_flags(op.sets, value)


def _is_own_difference(op: Op) -> bool:
    """Tell whether a vector instruction clears or fills a register by its own value: `pxor %xmm0, %xmm0`."""
    clears = op.name.startswith(("pxor", "xorp", "psub", "pcmpeq", "pcmpgt"))
    return clears and isinstance(op.operands[0], Other) and len(set(op.operands)) == 1


def _mov(t: Tracker, op: Op) -> None:
    target, source = op.operands[0], op.operands[1]
    value = t.read(op, source)
    if isinstance(target, Mem):
        t.saved(op, value)
    t.write(op, target, value)


def _movzx(t: Tracker, op: Op) -> None:
    value = t.read(op, op.operands[1])
    t.write(op, op.operands[0], value if value[0] else DEFINED)


def _movsx(t: Tracker, op: Op) -> None:
    mask, origin = t.read(op, op.operands[1])
    narrow, wide = width(op.operands[1]), width(op.operands[0])
    if mask >> narrow - 1:
        mask |= (1 << wide) - (1 << narrow)
    t.write(op, op.operands[0], (mask, origin) if mask else DEFINED)


def _xchg(t: Tracker, op: Op) -> None:
    first, second = op.operands[0], op.operands[1]
    one, two = t.read(op, first), t.read(op, second)
    t.write(op, first, two)
    t.write(op, second, one)


def _lea(t: Tracker, op: Op) -> None:
    target, source = op.operands[0], op.operands[1]
    if not isinstance(source, Mem):
        return
    parts = [t.regs[index] for index, _ in source.parts]
    mask = 0
    for part in parts:
        mask |= part[0]
    if mask:
        t.write(op, target, (_smeared(mask, width(target)), join(*parts)[1]))
    else:
        t.write(op, target, _kept(*parts))


def _kept(*values: Value) -> Value:
    """Return the null pointer among defined values, which stays one when something is added; else DEFINED."""
    return next((value for value in values if value[1]), DEFINED)


def _smeared(mask: int, bits: int) -> int:
    """Return the bits that a carry out of undefined ones reaches, those included."""
    return -(mask & -mask) & (1 << bits) - 1


def _operands(t: Tracker, op: Op) -> tuple[Value, Value, bool]:
    """Return both operands' values, and whether they are the same unknown."""
    first, second = op.operands[0], op.operands[1]
    one, two = t.read(op, first), t.read(op, second)
    aligned = not (isinstance(first, Reg) and isinstance(second, Reg)) or first.shift == second.shift
    return one, two, bool(one[0]) and one == two and aligned


def _add(t: Tracker, op: Op) -> None:
    one, two, same = _operands(t, op)
    carry = t.flag(op.tests & o.STATUS_FLAGS)
    target = op.operands[0]
    if same and op.name in ("sub", "sbb"):
        one = two = DEFINED
    mask, origin = join(one, two, carry)
    if not mask:
        t.write(op, target, _kept(one, two))
        t.set_flags(op.sets, DEFINED)
        return
    low = one[0] | two[0] | (1 if carry[0] else 0)
    value = (_smeared(low, width(target)), origin)
    t.write(op, target, value)
    t.set_flags(op.sets, value)


def _xor(t: Tracker, op: Op) -> None:
    one, two, same = _operands(t, op)
    mask = 0 if same else one[0] | two[0]
    value = (mask, one[1] if one[0] else two[1]) if mask else DEFINED
    t.write(op, op.operands[0], value)
    t.set_flags(op.sets, value)


def _and(t: Tracker, op: Op) -> None:
    """AND, TEST: a bit is known where either operand has a known 0."""
    one, two, _ = _operands(t, op)
    mask, origin, result = one[0] | two[0], 0, 0
    if mask:
        a, b = (t.concrete(op, operand) for operand in op.operands[:2])
        mask &= (one[0] | a) & (two[0] | b) & (1 << width(op.operands[0])) - 1
        origin = one[1] if one[0] & mask else two[1]
        result = a & b & ~mask
    value = (mask, origin) if mask else DEFINED
    if op.name == "and":
        t.write(op, op.operands[0], value)
    _logic_flags(t, op, value, result)


def _or(t: Tracker, op: Op) -> None:
    """A bit is known where either operand has a known 1."""
    one, two, _ = _operands(t, op)
    mask, origin, result = one[0] | two[0], 0, 0
    if mask:
        a, b = (t.concrete(op, operand) for operand in op.operands[:2])
        mask &= ~(a & ~one[0]) & ~(b & ~two[0]) & (1 << width(op.operands[0])) - 1
        origin = one[1] if one[0] & mask else two[1]
        result = (a | b) & ~mask & (1 << width(op.operands[0])) - 1
    value = (mask, origin) if mask else DEFINED
    t.write(op, op.operands[0], value)
    _logic_flags(t, op, value, result)


def _logic_flags(t: Tracker, op: Op, value: Value, result: int) -> None:
    """Set the flags of a result whose known bits are given: where one is 1, ZF is known."""
    mask = value[0]
    if not mask:
        t.set_flags(op.sets, DEFINED)
        return
    sign = 0x80 if mask >> width(op.operands[0]) - 1 else 0
    parity = 0x04 if mask & 0xFF else 0
    t.set_status(op.sets, sign | parity | (0 if result else _ZF), value)


def _cmp(t: Tracker, op: Op) -> None:
    one, two, same = _operands(t, op)
    undefined = one[0] | two[0]
    if same and not (t.concrete(op, op.operands[0]) ^ t.concrete(op, op.operands[1])) & undefined:
        undefined = 0
    if not undefined:
        t.set_flags(op.sets, DEFINED)
        return
    a, b = (t.concrete(op, operand) for operand in op.operands[:2])
    differ = (a ^ b) & ~undefined & (1 << width(op.operands[0])) - 1
    known = _ZF if same or differ else 0
    t.set_status(op.sets, op.sets & ~known, (undefined, one[1] if one[0] else two[1]))


def _neg(t: Tracker, op: Op) -> None:
    """INC, DEC, NEG."""
    target = op.operands[0]
    value = t.read(op, target)
    if value[0]:
        value = (_smeared(value[0], width(target)), value[1])
    t.write(op, target, value)
    t.set_flags(op.sets, value)


def _inc(t: Tracker, op: Op) -> None:
    target = op.operands[0]
    is_rex = op.bits == 32 and len(op.code) == 1
    if is_rex and isinstance(target, Reg) and t.regs[target.index] == ((1 << 64) - 1, o.GPR + target.index):
        t.violate(op, "entry.mode", "a REX prefix of 64-bit code is executed as 32-bit code, where it is INC or DEC")
    _neg(t, op)


def _not(t: Tracker, op: Op) -> None:
    t.write(op, op.operands[0], t.read(op, op.operands[0]))


def _shift(t: Tracker, op: Op) -> None:
    target = op.operands[0]
    count_operand = op.operands[1] if len(op.operands) > 1 else Imm(1)
    value, count_value = t.read(op, target), t.read(op, count_operand)
    bits = width(target)
    if op.name in ("rcl", "rcr"):
        value = join(value, t.flag(_CF))
    result = value
    if count_value[0] & 0x3F:
        value = result = ((1 << bits) - 1, count_value[1])
    elif value[0]:
        count = t.concrete(op, count_operand) & (63 if bits == 64 else 31)
        result = _shifted(op.name, value, bits, count)
    t.write(op, target, result)
    t.set_flags(op.sets, result)
    if value[0] and not result[0]:
        t.set_flags(op.sets & _OUT_FLAGS, value)  # the bit that was shifted out


def _shifted(name: str, value: Value, bits: int, count: int) -> Value:
    mask, full = value[0], (1 << bits) - 1
    if name in ("shl", "sal"):
        mask = mask << count & full
    elif name == "shr":
        mask >>= count
    elif name == "sar":
        mask = mask >> count | ((full << bits - min(count, bits)) & full if mask >> bits - 1 else 0)
    elif name in ("rol", "ror"):
        turn = (count if name == "rol" else -count) % bits
        mask = (mask << turn | mask >> bits - turn) & full
    else:
        mask = full
    return (mask, value[1]) if mask else DEFINED


def _bit(t: Tracker, op: Op) -> None:
    """BT, BTS, BTR, BTC: CF is the bit; BTS and BTR define it."""
    target, index = op.operands[0], op.operands[1]
    where = t.read(op, index)
    bits = width(target)
    at = t.concrete(op, index)
    if isinstance(target, Mem) and not isinstance(index, Imm):
        signed = at - (1 << width(index) if at >> width(index) - 1 else 0)
        step = (signed // bits) * (bits // 8)
        target = Mem(target.segment, target.parts, target.disp + step, target.size, target.width)
    value = t.read(op, target)
    bit = 1 << at % bits
    if where[0]:
        value = ((1 << bits) - 1, where[1])
    t.set_status(op.sets, 1 if value[0] & bit else 0, (value[0] & bit, value[1]))
    if op.name != "bt":
        mask = value[0] if op.name == "btc" or where[0] else value[0] & ~bit
        t.write(op, target, (mask, value[1]) if mask else DEFINED)


def _bswap(t: Tracker, op: Op) -> None:
    mask, origin = t.read(op, op.operands[0])
    size = width(op.operands[0]) // 8
    mask = int.from_bytes(mask.to_bytes(size, "little"), "big")
    t.write(op, op.operands[0], (mask, origin) if mask else DEFINED)


def _cmpxchg(t: Tracker, op: Op) -> None:
    """The accumulator decides by its value what is written: all of it is as undefined as any of it."""
    target, source = op.operands[0], op.operands[1]
    accumulator = Reg(0, 0, width(target))
    value = join(t.read(op, accumulator), t.read(op, target), t.read(op, source))
    value = ((1 << width(target)) - 1, value[1]) if value[0] else DEFINED
    t.write(op, target, value)
    t.write(op, accumulator, value)
    t.set_flags(op.sets, value)


def _cmc(_t: Tracker, _op: Op) -> None:
    """CF inverted is as defined as it was."""


def _cmov(t: Tracker, op: Op) -> None:
    """The condition decides a value, not a branch: the result is undefined if it is."""
    target, source = op.operands[0], op.operands[1]
    flags, old, new = t.flag(op.tests), t.read(op, target), t.read(op, source)
    if flags[0]:
        t.write(op, target, ((1 << width(target)) - 1, flags[1]))
    elif old != new:
        t.write(op, target, new if holds(op.name[4:], t.cpu.flags()) else old)
    elif isinstance(target, Reg):
        t.write(op, target, old)


def _setcc(t: Tracker, op: Op) -> None:
    flags = t.flag(op.tests)
    t.write(op, op.operands[0], (1, flags[1]) if flags[0] else DEFINED)


def holds(condition: str, flags: int) -> bool:
    """Return whether a condition such as `ne` or `be` holds with these EFLAGS."""
    base = condition[1:] if condition[:1] == "n" else condition
    wanted = condition[:1] != "n"
    cf, pf, zf, sf, of = (bool(flags >> at & 1) for at in (0, 2, 6, 7, 11))
    table = {"o": of, "b": cf, "e": zf, "be": cf or zf, "s": sf, "p": pf, "l": sf != of, "le": zf or sf != of,
             "a": not (cf or zf), "ae": not cf, "g": not (zf or sf != of), "ge": sf == of}  # fmt: skip
    return table.get(base, True) == wanted


_CONDITIONS = ("o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g")

RULES: dict[str, Rule] = {
    **dict.fromkeys(("mov", "movabs", "movups", "movupd", "movaps", "movapd", "movdqa", "movdqu", "movnti"), _mov),
    "movzx": _movzx, "movsx": _movsx, "movsxd": _movsx, "xchg": _xchg, "lea": _lea,
    "add": _add, "sub": _add, "adc": _add, "sbb": _add, "xor": _xor, "and": _and, "test": _and, "or": _or, "cmp": _cmp,
    "neg": _neg, "inc": _inc, "dec": _inc, "not": _not, "bswap": _bswap,
    "cmpxchg": _cmpxchg, "cmc": _cmc,
    **dict.fromkeys(("shl", "sal", "shr", "sar", "rol", "ror", "rcl", "rcr"), _shift),
    **dict.fromkeys(("bt", "bts", "btr", "btc"), _bit),
    **{f"cmov{condition}": _cmov for condition in _CONDITIONS},
    **{f"set{condition}": _setcc for condition in _CONDITIONS},
}  # fmt: skip
