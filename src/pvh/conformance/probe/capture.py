"""What the probe kernel printed, found in whatever else a console's log holds.

A line is `pvhprobe1 SEQ TAG ADDRESS BYTES CRC`, as tests/guests/probe.S says. Each was sent to several outputs, so it
may be there more than once; noise between lines does no harm, noise inside one is found by its CRC.
"""

from __future__ import annotations

import re
import zlib

from pvh.errors import UsageError
from pvh.record import dataclass

VERSION = 1
STRAY = b"pvhprobe1 e_entry"

_LINE = re.compile(
    rb"pvhprobe(\d+) ([0-9a-f]{8}) (....) ([0-9a-f]{8}) ((?:[0-9a-f]{2}){0,32}) ?([0-9a-f]{8})", re.DOTALL
)
_BEGUN = re.compile(rb"pvhprobe1 [0-9a-f]{8}")
_MOST_LINES = 4096


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes the probe read: tag, address (physical; a CPUID leaf's or an MSR's number), the bytes."""

    tag: str
    address: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Capture:
    """What was found in a log.

    blocks   what the probe told, in its order
    parts    how many of its parts came to their end: 1 is all that is read, 2 with MSRs, 3 with TR
    missing  sequence numbers of lines that are not there whole
    damaged  how many pieces look like a line and are none
    stray    a loader entered at e_entry
    """

    blocks: tuple[Block, ...]
    parts: int
    missing: tuple[int, ...] = ()
    damaged: int = 0
    stray: bool = False


def read_capture(log: bytes, path: str | None = None) -> Capture:
    """Return what the probe printed into a log. Raises UsageError where it printed nothing."""
    lines: dict[int, Block] = {}
    begun = len(_BEGUN.findall(log))
    whole = 0
    for found in _LINE.finditer(log):
        text = found.group(0)
        if zlib.crc32(text[: -len(b" 01234567")]) != int(found.group(6), 16):
            continue
        if int(found.group(1)) != VERSION:
            continue
        whole += 1
        number = int(found.group(2), 16)
        if number < _MOST_LINES:
            data = bytes.fromhex(found.group(5).decode())
            lines.setdefault(number, Block(found.group(3).decode("latin-1"), int(found.group(4), 16), data))
    stray = STRAY in log
    if not lines and not stray:
        raise UsageError("there is no line of the probe kernel in it", path=path, found=_what(log, begun),
                         wanted="lines that begin with pvhprobe1",
                         hint="pvh probe --write FILE makes the kernel to boot there")  # fmt: skip
    last = max(lines, default=-1)
    missing = tuple(number for number in range(last + 1) if number not in lines)
    blocks = tuple(_joined([lines[number] for number in sorted(lines)]))
    ends = [block for block in blocks if block.tag == "end."]
    return Capture(blocks, len(ends), missing, begun - whole, stray)


def _what(log: bytes, begun: int) -> str:
    return f"{begun} damaged lines" if begun else f"{len(log)} bytes of something else"


def _joined(lines: list[Block]) -> list[Block]:
    """Put blocks together that were longer than a line: same tag, and addresses that follow one another."""
    made: list[Block] = []
    for line in lines:
        before = made[-1] if made else None
        if before and before.tag == line.tag and before.address + len(before.data) == line.address and line.data:
            made[-1] = Block(before.tag, before.address, before.data + line.data)
        else:
            made.append(line)
    return made
