"""REP MOVS and REP STOS in one go: the hook costs more than a microsecond a turn, and kernels clear megabytes so.

All turns but the last are done here, in guest memory and registers; the last is the processor's. Left to it altogether
is what could be seen to differ: backwards, source and target that overlap, memory that is no RAM, may not be written,
or that code was executed from. Accessed and dirty bits of the pages but the last stay as they were.
"""

from __future__ import annotations

from pvh.conformance.monitor.decode import Mem
from pvh.conformance.monitor.origins import DF
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.conformance.monitor.decode import Op
    from pvh.conformance.monitor.tracker import Tracker

HURRY_FROM = 64  # turns
_MOST = 1 << 32  # bytes
_RAX, _RCX, _RSI, _RDI = 0, 1, 6, 7


def hurry(t: Tracker, op: Op, size: int, times: int) -> None:
    """Do all turns but the last of a repeated MOVS or STOS of that element size, in bytes, where it can be done."""
    cpu = t.cpu
    left = size * (times - 1)
    target = op.operands[0]
    if not isinstance(target, Mem) or target.width == 16 or cpu.flags() & DF or left > _MOST:
        return
    start = t.linear(op, target)
    pieces = cpu.window(start, left)
    if pieces is None:
        return
    if op.name.startswith("stos"):
        pattern = (cpu.gpr(_RAX) & (1 << 8 * size) - 1).to_bytes(size, "little") * (4096 // size + 2)
        _fill(pieces, pattern, size)
    else:
        source = op.operands[1]
        begin = t.linear(op, source) if isinstance(source, Mem) else 0
        data = _copy_of(t, begin, left) if abs(begin - start) >= left else None
        if data is None:
            return
        _spread(pieces, data)
        _advance(t, _RSI, left, target.width)
    _advance(t, _RDI, left, target.width)
    cpu.set_gpr(_RCX, 1)


def _fill(pieces: list[memoryview], pattern: bytes, size: int) -> None:
    done = 0
    for piece in pieces:
        first = done % size  # where a page ends inside an element
        piece[:] = pattern[first : first + len(piece)]
        done += len(piece)


def _copy_of(t: Tracker, start: int, size: int) -> bytes | None:
    data = t.cpu.memory(start, size)
    return data if len(data) == size else None


def _spread(pieces: list[memoryview], data: bytes) -> None:
    at = 0
    for piece in pieces:
        piece[:] = data[at : at + len(piece)]
        at += len(piece)


def _advance(t: Tracker, index: int, size: int, width: int) -> None:
    t.cpu.set_gpr(index, t.cpu.gpr(index) + size & (1 << width) - 1)
