"""What a Variation makes of a plan's parts, where it asks for anything."""

from __future__ import annotations

import random

from pvh.abi.start_info import MEMMAP_TYPE_RAM
from pvh.abi.x86 import PAGE_SIZE
from pvh.errors import DoesNotFit
from pvh.hints import TYPE_CHECKING
from pvh.plan import layout
from pvh.plan.memory_map import Span, cut
from pvh.plan.record import MemoryMapEntry
from pvh.record import replace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pvh.plan.start_info import InfoSegment, Part
    from pvh.plan.variation import Variation


def handed(entries: tuple[MemoryMapEntry, ...], variation: Variation) -> tuple[MemoryMapEntry, ...]:
    """Return the memory map as start_info is to show it: the same memory as the entries, told otherwise."""
    told = list(entries)
    if variation.pieces > 1:
        largest = max((entry for entry in told if entry.type == MEMMAP_TYPE_RAM), key=lambda entry: entry.size)
        told.remove(largest)
        told += _split(largest, variation.pieces)
    if variation.empties:
        ends = [entry.end for entry in entries if entry.type == MEMMAP_TYPE_RAM]
        told += [MemoryMapEntry(end, 0, MEMMAP_TYPE_RAM) for end in (0, *ends)]
    if variation.disorder is None:
        return tuple(sorted(told, key=lambda entry: (entry.addr, entry.size)))
    random.Random(variation.disorder).shuffle(told)  # noqa: S311 - no secret
    return tuple(told)


def _split(entry: MemoryMapEntry, pieces: int) -> list[MemoryMapEntry]:
    """Cut an entry into so many of whole pages, or as many as it has pages."""
    step = max(PAGE_SIZE, layout.page_down(entry.size // pieces))
    starts = [entry.addr + index * step for index in range(pieces) if index * step < entry.size]
    ends = [*starts[1:], entry.end]
    return [MemoryMapEntry(start, end - start, entry.type) for start, end in zip(starts, ends, strict=True)]


def moved(segment: InfoSegment, base: int, free: Sequence[Span], low_end: int, variation: Variation) -> InfoSegment:
    """Return the segment at base with parts elsewhere, as the variation asks; their offsets then may be negative.

    free is what no range covers, in whole pages; low_end is where RAM below 4 GiB ends. Raises DoesNotFit.
    """
    spans = list(free)
    if variation.edge:
        start = low_end - segment.head.size
        segment = replace(segment, head=replace(segment.head, offset=start - base))
        spans = cut(spans, (layout.page_down(start), low_end))
    if variation.scatter is None:
        return segment
    chooser = random.Random(variation.scatter)  # noqa: S311 - no secret

    def move(part: Part | None) -> Part | None:
        nonlocal spans
        if part is None:
            return None
        room = layout.page_up(part.size)
        fitting = [(start, end) for start, end in spans if end - start >= room]
        if not fitting:
            raise DoesNotFit(f"{part.name} has no place of its own", found=f"{part.size} bytes", hint="more --memory")
        start, end = chooser.choice(fitting)
        page = start + chooser.randrange((end - start - room) // PAGE_SIZE + 1) * PAGE_SIZE
        spans = cut(spans, (page, page + room))
        # Structures of 64-bit fields stay on 8 bytes; a string may begin anywhere.
        at = page + room - part.size
        return replace(part, offset=(at if part.content else at & ~7) - base)

    return replace(
        segment,
        cmdline=move(segment.cmdline),
        modlist=move(segment.modlist),
        module_cmdlines=tuple(move(part) for part in segment.module_cmdlines),
        memmap=move(segment.memmap),
    )
