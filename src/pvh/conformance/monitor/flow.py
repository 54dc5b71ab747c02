"""How definedness moves through branches, the stack, EFLAGS and string instructions, and what of that is a use."""

from __future__ import annotations

from pvh.conformance.monitor import origins as o
from pvh.conformance.monitor.alu import width
from pvh.conformance.monitor.decode import Imm, Mem, Op, Operand, Other, Reg, register
from pvh.conformance.monitor.repeat import HURRY_FROM, hurry
from pvh.conformance.monitor.shadow import DEFINED, Value, join
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.conformance.monitor.alu import Rule
    from pvh.conformance.monitor.tracker import Tracker

_BRANCH = "a branch"
_MOST_COPIED = 64 << 20  # bytes of one REP whose definedness is followed
_FIELD = {"b": 1, "w": 2, "d": 4, "q": 8}


def word(op: Op) -> int:
    """Return the bytes that a stack instruction without operands of its own moves."""
    if op.code[:1] == b"\x66":
        return 2
    return 8 if op.bits == 64 else op.bits // 8


def _branch(t: Tracker, op: Op) -> None:
    t.decide(op, t.flag(op.tests), _BRANCH)


def _count(t: Tracker, op: Op) -> None:
    """LOOP, JECXZ and their like."""
    counter = register("rcx" if op.bits == 64 and op.name != "jecxz" else "ecx")
    value = t.register(counter)
    if value[0]:
        t.use(op, value, f"decides {_BRANCH}")
    if op.name in ("loope", "loopne"):
        _branch(t, op)


def _target(t: Tracker, op: Op) -> None:
    """JMP and CALL, near; the far ones have names of their own, or operands of 6 bytes (rules of system.py)."""
    target = op.operands[0]
    if not isinstance(target, Imm):
        value = t.read(op, target)
        if value[0]:
            t.use(op, value, "is where control goes")
    if op.name == "call":
        t.push(op, word(op), DEFINED)


def _ret(t: Tracker, op: Op) -> None:
    value = t.pop(op, word(op))
    if value[0]:
        t.use(op, value, "is where control goes")


def _push(t: Tracker, op: Op) -> None:
    operand = op.operands[0]
    value = segment(t, operand) if isinstance(operand, Other) else t.read(op, operand)
    t.saved(op, value)
    size = width(operand) // 8 if isinstance(operand, Reg | Mem) else word(op)
    t.push(op, size, value)


def _pop(t: Tracker, op: Op) -> None:
    operand = op.operands[0]
    t.write(op, operand, t.pop(op, width(operand) // 8))


def _pusha(t: Tracker, op: Op) -> None:
    size = 2 if op.name == "pushaw" else 4
    mask = (1 << 8 * size) - 1
    base = t.stack(op, 8 * size)
    for index in range(8):
        value = t.regs[index][0] & mask, t.regs[index][1]
        t.saved(op, value)
        t.store(op, base + size * (7 - index), size, value if value[0] else DEFINED)


def _popa(t: Tracker, op: Op) -> None:
    size = 2 if op.name == "popaw" else 4
    for index in range(8):
        if index != 4:
            t.set_register(Reg(index, 0, 8 * size), t.pop(op, size, size * (7 - index)))


def _pushf(t: Tracker, op: Op) -> None:
    value = t.image()
    t.saved(op, value)
    size = word(op)
    mask = value[0] & (1 << 8 * size) - 1
    t.push(op, size, (mask, value[1]) if mask else DEFINED)


def _popf(t: Tracker, op: Op) -> None:
    size = word(op)
    mask, origin = t.pop(op, size)
    if size == 2:
        mask |= t.system & ~0xFFFF
    t.set_image(op, (mask, origin))


def _lahf(t: Tracker, _op: Op) -> None:
    mask, origin = t.status
    part = mask & 0xFF
    t.set_register(register("ah"), (part, origin) if part else DEFINED)


def _sahf(t: Tracker, _op: Op) -> None:
    value = t.register(register("ah"))
    t.set_status(0xD5, value[0] & 0xD5, value)


def _leave(t: Tracker, op: Op) -> None:
    wide = op.bits == 64
    frame = t.register(register("rbp" if wide else "ebp"))
    if frame[0]:
        t.use(op, frame, "is the address of a stack")
    t.regs[4] = frame if frame[0] else DEFINED
    base = 0 if wide else t.cpu.bases.get("ss", 0)
    t.regs[5] = t.load(t.cpu.gpr(5) + base & ((1 << op.bits) - 1), op.bits // 8)


def _direction(t: Tracker, _op: Op) -> None:
    t.system &= ~o.DF


def segment(t: Tracker, operand: Other) -> Value:
    """Return the value of a selector as MOV and PUSH read it: as at entry, until that segment has been loaded."""
    if operand.name in t.done or operand.name not in ("cs", "ds", "es", "ss", "fs", "gs"):
        return t.others.get(operand.name, DEFINED)
    return 0xFFFF, o.FS_GS if operand.name in ("fs", "gs") else o.SELECTOR


def _string(t: Tracker, op: Op) -> None:
    """MOVS, STOS, LODS, SCAS, CMPS, INS, OUTS."""
    size = _FIELD.get(op.name[-1], 1)
    counter = register("rcx" if op.bits == 64 else "ecx")
    times = 1
    if op.repeat:
        if t.repeating == op.address and op.name[:4] in ("movs", "stos", "lods"):
            return  # the whole of it was done when its first turn came
        value = t.register(counter)
        if value[0]:
            t.use(op, value, "is how often a string instruction repeats")
        times = t.concrete(op, counter)
        if not times:
            return
    if t.system & o.DF:
        t.use(op, (o.DF, o.FLAGS), "is which way a string instruction goes")
    t.repeating = op.address if op.repeat else -1
    _STRINGS[op.name[:4]](t, op, size, min(times, _MOST_COPIED // size))
    if op.name[:4] in ("movs", "stos") and times >= HURRY_FROM:
        hurry(t, op, size, times)


def _ends(t: Tracker, op: Op, operand: Operand, size: int, times: int) -> int:
    """Return the lowest linear address that a string instruction reaches through one of its operands."""
    assert isinstance(operand, Mem)
    start = t.linear(op, operand)
    backwards = bool(t.cpu.flags() & o.DF)
    return start - (times - 1) * size if backwards else start


def _movs(t: Tracker, op: Op, size: int, times: int) -> None:
    target = _ends(t, op, op.operands[0], size, times)
    t.null = False
    source = _ends(t, op, op.operands[1], size, times)
    left = size * times
    if t.null:
        t.fill(op, target, left)
        return
    while left > 0:
        count = min(left, 4096 - (source & 0xFFF), 4096 - (target & 0xFFF))
        t.copy(op, source, target, count)
        source, target, left = source + count, target + count, left - count


def _stos(t: Tracker, op: Op, size: int, times: int) -> None:
    target = _ends(t, op, op.operands[0], size, times)
    value = t.read(op, op.operands[1])
    t.fill(op, target, size * times, value if value[0] else DEFINED, size)


def _lods(t: Tracker, op: Op, size: int, times: int) -> None:
    t.null = False
    last = t.linear(op, op.operands[1]) if isinstance(op.operands[1], Mem) else 0
    t.write(op, op.operands[0], DEFINED if t.null else t.load(last + (times - 1) * size, size))


def _compared(t: Tracker, op: Op, _size: int, _times: int) -> None:
    """SCAS, CMPS: each turn for itself, as the comparison decides whether there is another."""
    values = [t.read(op, operand) for operand in op.operands[:2]]
    value = DEFINED if values[0] == values[1] else join(*values)
    t.set_flags(o.STATUS_FLAGS, value)
    if op.repeat and value[0]:
        t.use(op, value, f"decides {_BRANCH}")


def _ports(t: Tracker, op: Op, size: int, times: int) -> None:
    """INS defines memory; OUTS lets it out."""
    memory = next(operand for operand in op.operands if isinstance(operand, Mem))
    start = _ends(t, op, memory, size, times)
    if op.name.startswith("ins"):
        t.fill(op, start, size * times)
    elif (value := t.load(start, size))[0]:
        t.use(op, value, "is written to a port")


_STRINGS = {"movs": _movs, "stos": _stos, "lods": _lods, "scas": _compared, "cmps": _compared, "insb": _ports,
            "insw": _ports, "insd": _ports, "outs": _ports}  # fmt: skip
_JUMPS = ("jo", "jno", "jb", "jae", "je", "jne", "jbe", "ja", "js", "jns", "jp", "jnp", "jl", "jge", "jle", "jg")

RULES: dict[str, Rule] = {
    **dict.fromkeys(_JUMPS, _branch),
    **dict.fromkeys(("loop", "loope", "loopne", "jecxz", "jrcxz"), _count),
    "jmp": _target, "call": _target, "ret": _ret, "push": _push, "pop": _pop, "leave": _leave,
    "pushal": _pusha, "pushaw": _pusha, "popal": _popa, "popaw": _popa,
    **dict.fromkeys(("pushf", "pushfd", "pushfq"), _pushf), **dict.fromkeys(("popf", "popfd", "popfq"), _popf),
    "lahf": _lahf, "sahf": _sahf, "cld": _direction, "std": _direction,
    **{name + size: _string for name in ("movs", "stos", "lods", "scas", "cmps", "ins", "outs") for size in "bwdq"},
}  # fmt: skip
