"""prove: the properties every plan has, checked on every plan."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from pvh.abi.start_info import MEMMAP_TYPE_NVS, MEMMAP_TYPE_RAM, MEMMAP_TYPE_RESERVED
from pvh.abi.x86 import PAGE_SIZE
from pvh.errors import PvhError
from pvh.plan.layout import GIB4, LOW_RAM_END
from pvh.plan.memory_map import Span
from pvh.plan.record import Plan, RangeKind

# What the memory map must say of a range of each kind; None: nothing, a hole has no entry.
_TYPE_OF: dict[RangeKind, int | None] = {
    "kernel": MEMMAP_TYPE_RAM,
    "module": MEMMAP_TYPE_RAM,
    "start-info": MEMMAP_TYPE_RAM,
    "acpi": MEMMAP_TYPE_NVS,
    "special": MEMMAP_TYPE_RESERVED,
    "hole": None,
}


def _wrong(what: str) -> PvhError:
    return PvhError(f"the plan is wrong, a defect of pvh: {what}", hint="report it with the command that led here")


def prove(plan: Plan) -> None:
    """Raise PvhError unless the plan holds together.

    Ranges, memory map and backed blocks are each sorted and disjoint; every range lies inside one entry of the memory
    map of the type its kind wants (a hole inside none) and, if not a hole, inside one backed block; blocks are whole
    pages; RAM is all that was asked for, less an RSDP inside it and what a variation takes; start_info is below
    4 GiB, and page aligned unless a variation has it at the edge.
    """
    variation = plan.options.variation
    entries = [(entry.addr, entry.end) for entry in plan.memory_map]
    blocks = [(start, start + size) for start, size in plan.backed]
    _ascending("ranges", [(r.start, r.end) for r in plan.ranges])
    _ascending("memory map", entries)
    _ascending("blocks", blocks)
    for r in plan.ranges:
        wanted = _TYPE_OF[r.kind]
        index = _around(entries, (r.start, r.end))
        found = None if index is None else plan.memory_map[index].type
        if found != wanted or (wanted is None and _touches(entries, (r.start, r.end))):
            raise _wrong(f"{r.name} at {r.start:#x} is {r.kind} in memory of type {found}")
        if wanted is not None and _around(blocks, (r.start, r.end)) is None:
            raise _wrong(f"{r.name} at {r.start:#x} is not backed")
    if any(start % PAGE_SIZE or end % PAGE_SIZE for start, end in blocks):
        raise _wrong("a block is not whole pages")
    low_end = min(plan.options.memory, LOW_RAM_END)
    lost = sum(entry.size for entry in plan.memory_map if entry.type == MEMMAP_TYPE_NVS and entry.end <= low_end)
    lost += sum(end - start for start, end in variation.missing)
    if plan.ram + lost != plan.options.memory:
        raise _wrong(f"{plan.ram:#x} bytes of RAM for {plan.options.memory:#x}")
    if plan.start_info.paddr % (8 if variation.edge else PAGE_SIZE) or not 0 < plan.start_info.paddr < GIB4:
        raise _wrong(f"start_info at {plan.start_info.paddr:#x}")


def _ascending(what: str, spans: Sequence[Span]) -> None:
    before = 0
    for start, end in spans:
        if not before <= start < end:
            raise _wrong(f"{what}: {start:#x}-{end:#x} after {before:#x}")
        before = end


def _around(spans: Sequence[Span], span: Span) -> int | None:
    """Return the index of the span that holds all of another."""
    index = bisect_right(spans, span[0], key=lambda s: s[0]) - 1
    return index if index >= 0 and span[1] <= spans[index][1] else None


def _touches(spans: Sequence[Span], span: Span) -> bool:
    return any(start < span[1] and span[0] < end for start, end in spans)
