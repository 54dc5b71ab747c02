"""The memory map a guest is given: start_info's memmap and XENMEM_memory_map, sorted and disjoint."""

from __future__ import annotations

from collections.abc import Iterable

from pvh.abi.start_info import MEMMAP_TYPE_NVS, MEMMAP_TYPE_RAM, MEMMAP_TYPE_RESERVED
from pvh.abi.x86 import PAGE_SIZE
from pvh.plan import layout
from pvh.plan.record import MemoryMapEntry, Range
from pvh.plan.variation import Variation

Span = tuple[int, int]  # guest-physical start and end


def ram_spans(memory: int) -> list[Span]:
    """Return where memory bytes of RAM lie: from 0 up to the hole, the rest from 4 GiB."""
    low = min(memory, layout.LOW_RAM_END)
    spans = [(0, low)]
    if memory > low:
        spans.append((layout.HIGH_RAM_START, layout.HIGH_RAM_START + memory - low))
    return spans


def cut(spans: Iterable[Span], hole: Span) -> list[Span]:
    """Return the spans without what the hole covers, in the same order."""
    start, end = hole
    pieces: list[Span] = []
    for low, high in spans:
        pieces += [(a, b) for a, b in ((low, min(high, start)), (max(low, end), high)) if a < b]
    return pieces


def memory_map(
    memory: int, nvs: Iterable[Span], reserved: Iterable[Span], variation: Variation
) -> tuple[MemoryMapEntry, ...]:
    """Describe memory bytes of RAM, ACPI areas (NVS, as libxl types all of them) and reserved pages.

    An area inside RAM, the RSDP in the BIOS area, splits the RAM entry; libxl lets the two overlap, which the ABI
    leaves to the guest to sort out.
    """
    nvs = tuple(nvs)
    ram = ram_spans(memory)
    for area in (*nvs, *variation.missing):
        ram = cut(ram, area)
    typed = [(span, MEMMAP_TYPE_RAM) for span in ram]
    typed += [(span, MEMMAP_TYPE_NVS) for span in nvs]
    typed += [(span, MEMMAP_TYPE_RESERVED) for span in reserved]
    typed += [((start, start + size), kind) for start, size, kind in variation.foreign]
    return tuple(MemoryMapEntry(start, end - start, kind) for (start, end), kind in sorted(typed))


def backed_blocks(memory: int, ranges: Iterable[Range], variation: Variation) -> tuple[tuple[int, int], ...]:
    """Return (start, size) of all that needs host memory: RAM and every page of a range that is not a hole."""
    spans = ram_spans(memory)
    for gap in variation.missing:
        spans = cut(spans, gap)
    spans += [(layout.page_down(r.start), layout.page_up(r.end)) for r in ranges if r.kind != "hole"]
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple((start, end - start) for start, end in joined)


def identity_page_directory() -> bytes:
    """Return the page directory of 1024 identity-mapped 4 MiB pages that libxenguest puts on the IDENT_PT page.

    Flags: present, writable, user, accessed, dirty, page size (xg_dom_x86.c, alloc_magic_pages_hvm).
    """
    flags = 0xE7
    return b"".join((index << 22 | flags).to_bytes(4, "little") for index in range(PAGE_SIZE // 4))
