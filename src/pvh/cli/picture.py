"""A picture of where a kernel's segments lie in guest-physical memory, in characters.

A row for each segment and each gap, low addresses on top; all share one axis, on which a stretch is as long as the
logarithm of its pages, as in the plan's picture (plan/svg.py): or a gap of 16 MiB leaves nothing else to see.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import log2

from pvh.kernel.record import Kernel, Segment
from pvh.plan.units import size_text
from pvh.record import dataclass

BLOCKS, ASCII = "█▓▒·", "#=-."
"""What is executable, what can be written, what can only be read; and what no segment has."""

_MOST = 24  # rows; a file may claim thousands of segments
_SIZE, _LEAST = 9, 8  # columns: of a size, of the axis


@dataclass(frozen=True, slots=True)
class _Row:
    start: int
    end: int
    ink: int  # which of the characters
    label: str


def glyphs(encoding: str) -> str:
    """Return what to draw with where text is encoded so."""
    try:
        BLOCKS.encode(encoding)
    except (UnicodeError, LookupError):
        return ASCII
    return BLOCKS


def picture(kernel: Kernel, width: int, ink: str) -> list[str]:
    """Return the picture in lines of width columns at most, as far as addresses of 64 bits allow; none of no segment.

    ink  BLOCKS or ASCII
    """
    rows = list(_rows(kernel))
    if not rows:
        return []
    digits = max(len(f"{row.start:#x}") for row in rows)
    labels = max(len(row.label) for row in rows)
    room = max(_LEAST, width - 2 - digits - 1 - 1 - _SIZE - 2 - labels)
    place = _axis(rows, room)
    lines = ["where they lie (lengths by log of size):"]
    for row in rows[:_MOST]:
        at = min(place[row.start], room - 1)
        bar = " " * at + ink[row.ink] * max(1, place[row.end] - at)
        size = size_text(row.end - row.start)
        lines.append(f"  {row.start:#{digits}x} {bar:{room}} {size:>{_SIZE}}  {row.label}".rstrip())
    if len(rows) > _MOST:
        lines.append(f"  and {len(rows) - _MOST} more")
    return lines


def _axis(rows: list[_Row], room: int) -> dict[int, int]:
    """Return the column of every address where something begins or ends."""
    edges = sorted({edge for row in rows for edge in (row.start, row.end)})
    lengths = [1 + log2(1 + (high - low) / 4096) for low, high in pairwise(edges)]
    scale = room / sum(lengths)
    place, here = {edges[0]: 0}, 0.0
    for edge, length in zip(edges[1:], lengths, strict=True):
        here += length
        place[edge] = round(here * scale)
    return place


def _rows(kernel: Kernel) -> Iterator[_Row]:
    """Yield segments that take memory and the gaps between them, by address."""
    here = 0
    for segment in sorted((one for one in kernel.loads if one.memsz), key=lambda one: one.paddr):
        if segment.paddr > here:
            yield _Row(here, segment.paddr, 3, "")
        yield _Row(segment.paddr, segment.end, _kind(segment), f"{segment.index} {_flags(segment)}")
        here = max(here, segment.end)
    if here < kernel.end:
        yield _Row(here, kernel.end, 3, "symbols")


def _kind(segment: Segment) -> int:
    return 0 if segment.flags & 1 else 1 if segment.flags & 2 else 2


def _flags(segment: Segment) -> str:
    return "".join(letter if segment.flags & bit else "-" for letter, bit in (("R", 4), ("W", 2), ("X", 1)))
