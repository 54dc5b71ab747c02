"""What a processor's page tables map, as Intel SDM vol. 3, chapter 4, has a processor walk them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build.tables import LEGACY, LONG, LONG5, PAE, Tables
from pvh.build.cpu_state import CpuState
from pvh.build.linear import LinearMemory
from pvh.build.mappings import MOST_RANGES, Mapping, mappings
from pvh.build.ram import GuestRam

MIB = 1 << 20
HIGH = 0xFFFFFFFF80000000


@pytest.fixture
def ram() -> Iterator[GuestRam]:
    made = GuestRam(((0, 64 * MIB), (0xFC000000, 0x10000)))
    yield made
    made.close()


def test_without_paging_linear_addresses_are_physical(ram: GuestRam) -> None:
    assert mappings(ram, CpuState()) == ((Mapping(0, 0, 64 * MIB), Mapping(0xFC000000, 0xFC000000, 0x10000)), True)


@pytest.mark.parametrize("mode", [LEGACY, PAE, LONG, LONG5], ids=["32-bit", "PAE", "4-level", "5-level"])
def test_neighbours_in_both_address_spaces_are_one_range(ram: GuestRam, mode: tuple[int, ...]) -> None:
    tables = Tables(ram, mode)
    large = 22 if mode == LEGACY else 21
    tables.map(0x800000, 0x1000000, large)
    for page in range(0, 0x3000, 0x1000):
        tables.map(0x40000000 + page, 0x200000 + page)
    tables.map(0x40003000, 0x300000)  # follows in linear space only
    found, complete = mappings(ram, tables.cpu())
    assert complete
    assert found == (
        Mapping(0x800000, 0x1000000, 1 << large),
        Mapping(0x40000000, 0x200000, 0x3000),
        Mapping(0x40003000, 0x300000, 0x1000),
    )


def test_ranges_go_on_from_table_to_table_whatever_their_pages(ram: GuestRam) -> None:
    tables = Tables(ram, LONG)
    tables.map(HIGH, 0x1000000, 21)
    for page in range(0, 2 * MIB, 0x1000):
        tables.map(HIGH + 2 * MIB + page, 0x1200000 + page)
    tables.map(HIGH + 4 * MIB, 0x1400000, 21)
    assert mappings(ram, tables.cpu())[0] == (Mapping(HIGH, 0x1000000, 6 * MIB),)


@pytest.mark.parametrize("rip", [0x800000, 0xC00000, 0x1000000])
def test_a_range_is_one_wherever_in_it_the_walk_began(ram: GuestRam, rip: int) -> None:
    tables = Tables(ram, LEGACY)
    for linear in (0x800000, 0xC00000, 0x1000000):
        tables.map(linear, linear, 22)
    assert mappings(ram, tables.cpu(rip=rip))[0] == (Mapping(0x800000, 0x800000, 12 * MIB),)


@pytest.mark.parametrize(("mode", "linear"), [(LONG, 0xFFFF800000000000), (LONG5, 0xFF00000000000000)])
def test_the_upper_half_is_canonical(ram: GuestRam, mode: tuple[int, ...], linear: int) -> None:
    tables = Tables(ram, mode)
    tables.map(linear, 0x200000)
    tables.map(0x00007FFFFFFFF000, 0x300000)
    assert mappings(ram, tables.cpu())[0] == (
        Mapping(0x00007FFFFFFFF000, 0x300000, 0x1000),
        Mapping(linear, 0x200000, 0x1000),
    )


def test_of_a_large_page_only_what_is_ram_counts(ram: GuestRam) -> None:
    tables = Tables(ram, LONG)
    tables.map(0, 0, 30)
    tables.map(3 << 30, 3 << 30, 30)
    tables.map(0x7F0000000000, 0xFEE00000)  # the local APIC
    found, complete = mappings(ram, tables.cpu())
    assert complete
    assert found == (Mapping(0, 0, 64 * MIB), Mapping(0xFC000000, 0xFC000000, 0x10000))


def test_a_large_page_of_32_bit_paging_may_lie_above_4_gib() -> None:
    """PSE-36: bits 20:13 of the entry are bits 39:32 of the address (SDM vol. 3, table 4-4)."""
    high = GuestRam(((0, MIB), (0x1_00000000, 4 * MIB)))
    tables = Tables(high, LEGACY, at=0x1000)
    tables.store(tables.top, 1 << 13 | 0x83)
    assert mappings(high, tables.cpu())[0] == (Mapping(0, 0x1_00000000, 4 * MIB),)
    high.close()


def test_without_pse_a_large_bit_means_nothing(ram: GuestRam) -> None:
    tables = Tables(ram, LEGACY)
    tables.store(tables.top, 0x20000 | 0x83)
    tables.store(0x20000 + 5 * 4, 0x300000 | 3)
    cpu = tables.cpu()
    without = CpuState(cr0=cpu.cr0, cr3=cpu.cr3, cs=cpu.cs)
    assert mappings(ram, without)[0] == (Mapping(0x5000, 0x300000, 0x1000),)


@pytest.mark.parametrize("cr3", [0x5000000, 0xFFFFFFFFF000, 0x3FFF000 + 0x1000])
def test_tables_outside_ram_map_nothing(ram: GuestRam, cr3: int) -> None:
    tables = Tables(ram, LONG, at=0x1000)
    cpu = tables.cpu()
    lost = CpuState(cr0=cpu.cr0, cr3=cr3, cr4=cpu.cr4, efer=cpu.efer, cs=cpu.cs)
    assert mappings(ram, lost) == ((), True)
    tables.store(tables.top, cr3 | 3)
    assert mappings(ram, cpu) == ((), True)


def test_a_table_that_maps_itself_is_walked_like_any_other(ram: GuestRam) -> None:
    """A recursive slot shows the tables themselves: hobby kernels edit them there."""
    tables = Tables(ram, LONG, at=0x1000)
    tables.map(0x400000, 0x200000)
    tables.store(tables.top + 511 * 8, tables.top | 3)
    found, complete = mappings(ram, tables.cpu())
    assert complete
    assert Mapping(0x400000, 0x200000, 0x1000) in found
    assert Mapping(0xFFFFFFFFFFFFF000, tables.top, 0x1000) in found


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_knot_of_tables_is_walked_within_bounds(ram: GuestRam, depth: int) -> None:
    """Full tables, each page of entries pointing to one table: 2^48 bytes described in up to 16 KiB."""
    for level in range(depth):
        following = 0x1000 * (level + 2) if level + 1 < depth else 0x1000
        ram.write(0x1000 * (level + 1), (following | 3).to_bytes(8, "little") * 512)
    tables = Tables(ram, LONG, at=0x1000)
    started = time.monotonic()
    found, complete = mappings(ram, tables.cpu())
    assert not complete
    assert len(found) <= MOST_RANGES
    assert time.monotonic() - started < 5


def test_what_is_left_out_is_not_where_the_processor_stands(ram: GuestRam) -> None:
    tables = Tables(ram, LONG, at=0x1000)
    tables.map(HIGH, 0x200000)
    tables.map(0xFFFFC90000000000, 0x300000)
    ram.write(0x800000, b"".join((0x900000 + (i % 2 << 13) | 3).to_bytes(8, "little") for i in range(512)))
    ram.write(0x700000, (0x800000 | 3).to_bytes(8, "little") * 512)
    ram.write(0x600000, (0x700000 | 3).to_bytes(8, "little") * 512)
    tables.store(tables.top, 0x600000 | 3)
    found, complete = mappings(ram, tables.cpu(rip=HIGH, rsp=0xFFFFC90000000000))
    assert not complete
    assert Mapping(HIGH, 0x200000, 0x1000) in found
    assert Mapping(0xFFFFC90000000000, 0x300000, 0x1000) in found


@given(
    mode=st.sampled_from((LEGACY, PAE, LONG)),
    pages=st.dictionaries(st.integers(0, 0xFFFFF), st.integers(0x100, 0x3FFF), max_size=12),
)
def test_each_range_is_what_translation_says(mode: tuple[int, ...], pages: dict[int, int]) -> None:
    ram = GuestRam(((0, 64 * MIB),))
    tables = Tables(ram, mode)
    for number, frame in pages.items():
        tables.map(number << 12, frame << 12)
    cpu = tables.cpu()
    found, _ = mappings(ram, cpu)
    memory = LinearMemory(ram, cpu)
    for mapping in found:
        for offset in range(0, mapping.size, 0x1000):
            assert memory.translate(mapping.linear + offset) == mapping.gpa + offset
    assert sum(mapping.size for mapping in found) == len(pages) << 12
    ram.close()
