"""Which pages of guest RAM may hold anything but zeroes, so that nobody has to read gigabytes of nothing.

Linux tells by /proc/self/pagemap (Documentation/admin-guide/mm/pagemap.rst: 8 bytes a page; bit 63 present, bit 62
swapped). A private mapping of a file holds the file's bytes before anybody touches it: it counts as populated.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from pvh.abi.x86 import PAGE_SIZE
from pvh.build.ram import Block, GuestRam
from pvh.host import FLAGS, pread

PAGEMAP = "/proc/self/pagemap"
_STEP = 64 << 20  # bytes of guest RAM looked at in one go
_ZEROES = bytes(64 << 10)  # what the slow way compares with
_TOUCHED = bytes(1 if flags & 0xC0 else 0 for flags in range(256))  # by the top byte of a pagemap entry


def populated(ram: GuestRam) -> Iterator[tuple[int, int]]:
    """Yield (gpa, size in bytes) of the runs that may hold something, in order; all else is zeroes.

    Where the system does not tell (no /proc, another kernel), every byte is read.
    """
    try:
        fd = os.open(PAGEMAP, os.O_RDONLY | FLAGS)
    except OSError:
        fd = -1
    try:
        for block in ram.blocks:
            for gpa in range(block.gpa, block.end, _STEP):
                size = min(_STEP, block.end - gpa)
                yield from _runs(ram, block, gpa, size, fd)
    finally:
        if fd >= 0:
            os.close(fd)


def _runs(ram: GuestRam, block: Block, gpa: int, size: int, fd: int) -> Iterator[tuple[int, int]]:
    """Yield the runs of one step."""
    marks, unit = _pagemap_marks(block.host + gpa - block.gpa, size, fd), PAGE_SIZE
    if marks is None:
        marks, unit = _content_marks(block.view[gpa - block.gpa :][:size]), len(_ZEROES)
    for start, count in ram.mapped_files:
        first, last = max(start, gpa), min(start + count, gpa + size)
        if first < last:
            begin, end = (first - gpa) // unit, -(-(last - gpa) // unit)
            marks[begin:end] = b"\1" * (end - begin)
    position = marks.find(1)
    while position >= 0:
        end = marks.find(0, position)
        end = len(marks) if end < 0 else end
        yield gpa + position * unit, min((end - position) * unit, size - position * unit)
        position = marks.find(1, end)


def _pagemap_marks(host: int, size: int, fd: int) -> bytearray | None:
    """Return a byte for each page of a host range, 1 where it was touched; None when the system does not say."""
    if fd < 0:
        return None
    try:
        entries = pread(fd, size // PAGE_SIZE * 8, host // PAGE_SIZE * 8)
    except OSError:
        return None
    if len(entries) != size // PAGE_SIZE * 8:
        return None
    return bytearray(entries[7::8].translate(_TOUCHED))


def _content_marks(view: memoryview) -> bytearray:
    """Return a byte for each 64 KiB, 1 where one of them is not zero."""
    unit = len(_ZEROES)
    return bytearray(bytes(view[at : at + unit]) != _ZEROES[: len(view) - at] for at in range(0, len(view), unit))
