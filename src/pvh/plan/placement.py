"""Where segments and floating parts go: libelf's load order, libxenguest's allocation order."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

from pvh.abi.x86 import PAGE_SIZE
from pvh.kernel.record import Kernel, Segment
from pvh.plan import layout
from pvh.plan.memory_map import Span, cut
from pvh.plan.record import FileBytes, Range
from pvh.record import replace


def kernel_ranges(kernel: Kernel) -> list[Range]:
    """Return the kernel's ranges, sorted and disjoint, with the memory that results when libelf loads them.

    libelf copies and clears one segment after the other in the file's order, so where two overlap the later one is
    what stands in memory (xen/common/libelf/libelf-loader.c, elf_load_binary). The earlier one keeps the parts the
    later one does not reach.
    """
    ranges: list[Range] = []
    starts: list[int] = []
    for segment in kernel.loads:
        if not segment.memsz:
            continue
        whole = _segment_range(kernel, segment)
        first = bisect_right(starts, whole.start) - 1
        if first < 0 or ranges[first].end <= whole.start:
            first += 1
        last = bisect_left(starts, whole.end)
        kept = [piece for old in ranges[first:last] for piece in _outside(old, whole)]
        pieces = sorted([*kept, whole], key=lambda piece: piece.start)
        ranges[first:last] = pieces
        starts[first:last] = [piece.start for piece in pieces]
    return ranges


def _segment_range(kernel: Kernel, segment: Segment) -> Range:
    rights = "".join(letter for bit, letter in ((4, "r"), (2, "w"), (1, "x")) if segment.flags & bit)
    name = f"segment {segment.index} ({rights})"
    content = FileBytes(kernel.source, segment.offset, segment.filesz)  # never above memsz: kernel/verdict.py
    return Range(segment.paddr, segment.memsz, "kernel", name, layout.KERNEL_REASON, content)


def _outside(old: Range, new: Range) -> list[Range]:
    """Return the parts of a kernel range that a later segment does not cover."""
    assert isinstance(old.content, FileBytes)
    pieces: list[Range] = []
    for start, end in cut([(old.start, old.end)], (new.start, new.end)):
        skip = start - old.start
        count = max(0, min(old.content.count - skip, end - start))
        content = FileBytes(old.content.source, old.content.offset + skip, count)
        pieces.append(Range(start, end - start, "kernel", old.name, old.reason, content))
    return pieces


def shifted(kernel: Kernel, delta: int) -> Kernel:
    """Return the kernel as if it were linked delta bytes higher, which is what relocation does to it."""
    if not delta:
        return kernel
    segments = tuple(
        replace(segment, paddr=segment.paddr + delta) if segment.loads else segment for segment in kernel.segments
    )
    assert kernel.entry is not None
    return replace(
        kernel, segments=segments, entry=kernel.entry + delta, start=kernel.start + delta, end=kernel.end + delta
    )


def free_gaps(kernel: Kernel, low_end: int, taken: Sequence[Span]) -> list[Span]:
    """Return the free page-aligned stretches of RAM below 4 GiB in the order they are to be tried.

    low_end is where that RAM ends; taken is what is fixed inside it. The first is above the kernel, where
    libxenguest's allocator works; the others are layout's places for a kernel loaded high.
    """
    kernel_start, kernel_end = layout.page_down(kernel.start), layout.page_up(kernel.end)
    below = [(layout.BELOW_KERNEL, low_end), layout.BELOW_ISA_HOLE]
    gaps = [(kernel_end, low_end)] + [(start, min(end, kernel_start, low_end)) for start, end in below]
    for start, end in taken:
        gaps = cut(gaps, (layout.page_down(start), layout.page_up(end)))
    return [gap for gap in gaps if gap[0] < gap[1]]


def place(sizes: Sequence[int], gaps: Sequence[Span]) -> list[int] | None:
    """Give each size, in order, the first address of the first gap that still has room; None when one has none.

    Every address is page aligned, and even 0 bytes take a page, so that no two addresses are equal.
    """
    room = list(gaps)
    addresses: list[int] = []
    for size in sizes:
        need = max(PAGE_SIZE, layout.page_up(size))
        for index, (start, end) in enumerate(room):
            if end - start >= need:
                addresses.append(start)
                room[index] = (start + need, end)
                break
        else:
            return None
    return addresses


def least_memory(fits: Callable[[int], bool], low: int) -> int | None:
    """Return the least RAM in bytes, from low up, with which everything fits; None when it never does.

    fits tells it of an amount. More RAM only lengthens the gap above the kernel, so halving finds the edge.
    """
    high = layout.LOW_RAM_END
    if low > high or not fits(high):
        return None
    low = layout.page_up(low)
    while low < high:
        middle = layout.page_down((low + high) // 2)
        if fits(middle):
            high = middle
        else:
            low = middle + PAGE_SIZE
    return high
