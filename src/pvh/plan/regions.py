"""A plan as an unbroken run of regions, for people: the ranges and what lies between them."""

from __future__ import annotations

from collections.abc import Iterator

from pvh.abi.start_info import MEMMAP_TYPE_RAM
from pvh.plan.record import Plan
from pvh.record import dataclass

# Less than this between two ranges is alignment (16 bytes for ACPI tables, 8 in the start_info segment).
_ALIGNMENT = 16


@dataclass(frozen=True, slots=True)
class Region:
    """Guest-physical [start, end); kind is a range's, or free (RAM), slack (of a firmware page), none (no memory)."""

    start: int
    end: int
    kind: str
    name: str
    reason: str = ""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


def regions(plan: Plan) -> tuple[Region, ...]:
    """Return everything from 0 to the last range or the end of memory, ascending; bytes of alignment are left out."""
    found: list[Region] = []
    here = 0
    for r in plan.ranges:
        found += _between(plan, here, r.start)
        found.append(Region(r.start, r.end, r.kind, r.name, r.reason))
        here = r.end
    found += _between(plan, here, max(here, plan.memory_map[-1].end))
    return tuple(found)


def _between(plan: Plan, start: int, end: int) -> Iterator[Region]:
    """Yield what an unowned stretch is made of: parts of memory map entries, and no memory."""
    here = start
    for entry in plan.memory_map:
        low, high = max(entry.addr, start), min(entry.end, end)
        if low >= high:
            continue
        if low > here:
            yield Region(here, low, "none", "no memory")
        if high - low >= _ALIGNMENT:
            ram = entry.type == MEMMAP_TYPE_RAM
            yield Region(low, high, "free" if ram else "slack", "free RAM" if ram else "rest of page")
        here = high
    if here < end:
        yield Region(here, end, "none", "no memory")
