"""The linear memory a processor can reach: its page tables as a list of ranges.

Intel SDM vol. 3, chapter 4: no paging, 32-bit, PAE, 4-level and 5-level paging. A guest may tie its tables into knots
that describe 2^48 bytes in one page, so the walk is bounded, and says when it met its bound.
"""

from __future__ import annotations

from collections.abc import Iterator

from pvh.abi import x86
from pvh.build.cpu_state import CpuState
from pvh.build.ram import GuestRam
from pvh.record import dataclass

_PRESENT = 1 << 0
_LARGE = 1 << 7
_FRAME = 0x000FFFFFFFFFF000

# Linux with 512 MiB has some hundred tables and a few thousand ranges. An ELF file counts its segments in 16 bits.
MOST_RANGES = 16384
MOST_TABLES = 16384


@dataclass(frozen=True, slots=True, order=True)
class Mapping:
    """size bytes of RAM at guest-physical address gpa, seen at a linear address (64-bit canonical)."""

    linear: int
    gpa: int
    size: int


@dataclass(frozen=True, slots=True)
class _Paging:
    """A paging mode: address of the top table, the bit its index starts at, its entries, where pages may be large."""

    top: int
    shift: int
    count: int
    large: frozenset[int]
    entry: int = 8

    @property
    def lower(self) -> int:
        """Index bits of every table but the top one."""
        return 9 if self.entry == 8 else 10

    def page(self, entry: int, shift: int) -> int:
        """Return the guest-physical address of the page an entry maps at a level."""
        if self.entry == 4 and shift == 22:
            return (entry >> 13 & 0xFF) << 32 | entry & 0xFFC00000  # PSE-36
        return entry & _FRAME & -(1 << shift)


def mappings(ram: GuestRam, cpu: CpuState) -> tuple[tuple[Mapping, ...], bool]:
    """Return what of RAM is mapped, sorted by linear address and merged, and whether that is all.

    Where it is not all, what was left out is not near RIP or RSP if that could be had: their parts are walked first.
    """
    if not cpu.cr0 & x86.CR0_PG:
        return tuple(Mapping(block.gpa, block.gpa, block.size) for block in ram.blocks), True
    walk = _Walk(ram, _paging(cpu))
    walk.run(cpu.linear_rip, cpu.gprs[4])
    found = tuple(_merged(sorted(_in_ram(ram, walk.found))))
    return found[:MOST_RANGES], walk.complete and len(found) <= MOST_RANGES


def _paging(cpu: CpuState) -> _Paging:
    if cpu.efer & x86.EFER_LMA:
        return _Paging(cpu.cr3 & _FRAME, 48 if cpu.cr4 & x86.CR4_LA57 else 39, 512, frozenset((21, 30)))
    if cpu.cr4 & x86.CR4_PAE:
        return _Paging(cpu.cr3 & 0xFFFFFFE0, 30, 4, frozenset((21,)))
    large = frozenset((22,)) if cpu.cr4 & x86.CR4_PSE else frozenset[int]()
    return _Paging(cpu.cr3 & 0xFFFFF000, 22, 1024, large, entry=4)


class _Walk:
    """One walk through all tables, within its bounds. found: runs of pages that go on in both address spaces."""

    def __init__(self, ram: GuestRam, paging: _Paging) -> None:
        self._ram = ram
        self._paging = paging
        self._tables = 0
        self._end = (-1, -1)  # of the last run: linear, guest physical
        self.found: list[list[int]] = []  # [linear, gpa, size]
        self.complete = True

    def run(self, *first: int) -> None:
        """Walk the top table's entries, those of the given linear addresses first."""
        shift, count = self._paging.shift, self._paging.count
        entries = self._read(self._paging.top, count)
        ahead = dict.fromkeys(address >> shift & count - 1 for address in first)
        for index in (*ahead, *(index for index in range(count) if index not in ahead)):
            if index < len(entries) and entries[index] & _PRESENT:
                linear = index << shift
                if count == 512 and index & 256:  # canonical: the top bit goes on upwards
                    linear |= -(1 << shift + 9) & (1 << 64) - 1
                self._entry(entries[index], linear, shift)

    def _entry(self, entry: int, linear: int, shift: int) -> None:
        """Add the page of a present entry, or walk the table it points to."""
        if shift == x86.PAGE_SHIFT or (entry & _LARGE and shift in self._paging.large):
            self._add(linear, self._paging.page(entry, shift), 1 << shift)
            return
        if self._tables >= MOST_TABLES or len(self.found) >= MOST_RANGES:
            self.complete = False
            return
        self._tables += 1
        lower = self._paging.lower
        below = shift - lower
        for index, inner in enumerate(self._read(entry & _FRAME, 1 << lower)):
            if inner & _PRESENT:
                self._entry(inner, linear | index << below, below)

    def _read(self, gpa: int, count: int) -> memoryview:
        """Return a table's entries; none where it does not lie in RAM."""
        view = self._ram.view(gpa, count * self._paging.entry)
        return (view if view is not None else memoryview(b"")).cast("Q" if self._paging.entry == 8 else "I")

    def _add(self, linear: int, gpa: int, size: int) -> None:
        if self._end == (linear, gpa):
            self.found[-1][2] += size
        elif len(self.found) < MOST_RANGES:
            self.found.append([linear, gpa, size])
        else:
            self.complete = False
            return
        self._end = linear + size, gpa + size


def _in_ram(ram: GuestRam, runs: list[list[int]]) -> Iterator[Mapping]:
    """Yield what of the runs is RAM; the rest is device memory, or nothing."""
    for linear, gpa, size in runs:
        for block in ram.blocks:
            start, end = max(gpa, block.gpa), min(gpa + size, block.end)
            if start < end:
                yield Mapping(linear + start - gpa, start, end - start)


def _merged(ordered: list[Mapping]) -> Iterator[Mapping]:
    """Join what the walk's own order had kept apart."""
    held: Mapping | None = None
    for run in ordered:
        if held and (held.linear + held.size, held.gpa + held.size) == (run.linear, run.gpa):
            held = Mapping(held.linear, held.gpa, held.size + run.size)
            continue
        if held:
            yield held
        held = run
    if held:
        yield held
