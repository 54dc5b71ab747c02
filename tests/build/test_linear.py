"""Linear to physical, as the processor translates (Intel SDM vol. 3, chapter 4)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest

from pvh.build.cpu_state import CpuState, SegmentRegister
from pvh.build.linear import LinearFault, LinearMemory
from pvh.build.ram import GuestRam

PAGE = 0x1000
ROOT, SECOND, THIRD, FOURTH, DATA = 0x1000, 0x2000, 0x3000, 0x4000, 0x8000
P, W, LARGE = 1, 2, 0x80

CODE32 = SegmentRegister(8, 0, 0xFFFFFFFF, 0xC9B)
CODE64 = SegmentRegister(8, 0, 0xFFFFFFFF, 0xA9B)
FLAT = CpuState(cr0=0x11, cs=CODE32)
WP = 1 << 16
LEGACY = replace(FLAT, cr0=0x80000011 | WP, cr3=ROOT | 0x18, cr4=1 << 4)
PAE = replace(FLAT, cr0=0x80000011 | WP, cr3=ROOT | 0x20, cr4=1 << 5)
LONG = replace(PAE, cr3=ROOT, efer=0x500, cs=CODE64)


@pytest.fixture
def ram() -> Iterator[GuestRam]:
    made = GuestRam(((0, 1 << 24),))
    for page in range(4):
        made.write(DATA + page * PAGE, bytes([page + 1]) * PAGE)
    yield made
    made.close()


def put(ram: GuestRam, table: int, index: int, entry: int, size: int = 8) -> None:
    assert ram.write(table + index * size, struct.pack("<Q" if size == 8 else "<I", entry))


def test_without_paging_linear_is_physical_and_wraps_at_4_gib(ram: GuestRam) -> None:
    memory = LinearMemory(ram, FLAT)
    assert memory.read((1 << 32) + DATA + PAGE - 1, 2) == b"\1\2"
    assert memory.translate(1 << 32 | 5) == 5


def test_a_range_of_no_bytes_is_never_a_fault(ram: GuestRam) -> None:
    assert LinearMemory(ram, FLAT).read(1 << 30, 0) == b""


@pytest.mark.parametrize("address", [1 << 24, (1 << 24) - 1])
def test_what_is_no_memory_is_a_fault(ram: GuestRam, address: int) -> None:
    with pytest.raises(LinearFault):
        LinearMemory(ram, FLAT).read(address, 2)
    with pytest.raises(LinearFault):
        LinearMemory(ram, FLAT).write(address, b"xx")


def long_tables(ram: GuestRam, entry: int = DATA | P | W) -> int:
    """Map one page in 4-level tables; return its linear address, in the upper half."""
    put(ram, ROOT, 511, SECOND | P | W)
    put(ram, SECOND, 1, THIRD | P | W)
    put(ram, THIRD, 2, FOURTH | P | W)
    put(ram, FOURTH, 3, entry)
    return 0xFFFF_FF80_4040_3000


def test_four_levels(ram: GuestRam) -> None:
    address = long_tables(ram)
    put(ram, FOURTH, 4, DATA + 2 * PAGE | P | W)
    memory = LinearMemory(ram, LONG)
    assert memory.translate(address + 5) == DATA + 5
    assert memory.read(address + PAGE - 1, 2) == b"\1\3"
    memory.write(address + PAGE - 1, b"xy")
    assert ram.read(DATA + PAGE - 1, 1) == b"x"
    assert ram.read(DATA + 2 * PAGE, 1) == b"y"


@pytest.mark.parametrize(("level", "shift"), [(SECOND, 30), (THIRD, 21)])
def test_large_pages(ram: GuestRam, level: int, shift: int) -> None:
    address = long_tables(ram)
    put(ram, level, address >> shift & 511, 1 << shift | P | W | LARGE)
    assert LinearMemory(ram, LONG).translate(address) == 1 << shift | address & (1 << shift) - 1


def test_bit_7_of_the_last_level_is_no_size(ram: GuestRam) -> None:
    assert LinearMemory(ram, LONG).translate(long_tables(ram, DATA | P | LARGE)) == DATA


def test_reserved_high_bits_such_as_nx_are_no_address(ram: GuestRam) -> None:
    assert LinearMemory(ram, LONG).translate(long_tables(ram, 1 << 63 | DATA | P)) == DATA


@pytest.mark.parametrize("table", [(ROOT, 511), (SECOND, 1), (THIRD, 2), (FOURTH, 3)])
def test_an_absent_entry_of_any_level_is_a_fault(ram: GuestRam, table: tuple[int, int]) -> None:
    address = long_tables(ram)
    put(ram, *table, 0)
    with pytest.raises(LinearFault) as caught:
        LinearMemory(ram, LONG).read(address, 1)
    assert caught.value.address == address


def test_tables_outside_memory_are_absent(ram: GuestRam) -> None:
    assert LinearMemory(ram, replace(LONG, cr3=1 << 40)).translate(0) is None


@pytest.mark.parametrize("address", [1 << 47, 0x8000_0000_0000_0000, 0xFFFF_7FFF_FFFF_FFFF])
def test_addresses_that_are_not_canonical_are_faults(ram: GuestRam, address: int) -> None:
    assert LinearMemory(ram, LONG).translate(address) is None


def test_read_only_pages_stop_the_supervisor_only_with_wp(ram: GuestRam) -> None:
    address = long_tables(ram, DATA | P)
    assert LinearMemory(ram, LONG).read(address, 1) == b"\1"
    with pytest.raises(LinearFault):
        LinearMemory(ram, LONG).write(address, b"x")
    LinearMemory(ram, replace(LONG, cr0=LONG.cr0 & ~WP)).write(address, b"x")
    assert ram.read(DATA, 1) == b"x"


def test_a_store_that_faults_later_leaves_the_pages_before_it_written(ram: GuestRam) -> None:
    """As Xen's hvm_copy does."""
    address = long_tables(ram)
    with pytest.raises(LinearFault):
        LinearMemory(ram, LONG).write(address + PAGE - 2, b"abcd")
    assert ram.read(DATA + PAGE - 2, 2) == b"ab"


def test_64_bit_ranges_wrap_at_the_top_and_32_bit_ones_at_4_gib(ram: GuestRam) -> None:
    put(ram, ROOT, 0, SECOND | P | W)
    put(ram, SECOND, 0, LARGE | P | W)
    top = long_tables(ram) | 0xFFFF_FFFF_FFFF_F000
    put(ram, SECOND, 511, THIRD | P | W)
    put(ram, THIRD, 511, FOURTH | P | W)
    put(ram, FOURTH, 511, DATA | P)
    put(ram, ROOT, 511, SECOND | P | W)
    assert LinearMemory(ram, LONG).read(top + PAGE - 1, 2) == b"\1\0"
    compat = replace(LONG, cs=CODE32)
    put(ram, SECOND, 3, THIRD | P | W)
    assert LinearMemory(ram, compat).read(0xFFFFFFFF, 2) == b"\1\0"


def test_pae(ram: GuestRam) -> None:
    put(ram, ROOT + 0x20, 3, SECOND | P)
    put(ram, SECOND, 1, THIRD | P | W)
    put(ram, THIRD, 2, DATA | P | W)
    put(ram, SECOND, 2, 0x400000 | P | W | LARGE)
    memory = LinearMemory(ram, PAE)
    assert memory.read(0xC0202000, 1) == b"\1"
    assert memory.translate(0xC0412345) == 0x412345
    assert memory.translate(0) is None


def test_32_bit_tables(ram: GuestRam) -> None:
    put(ram, ROOT, 1, SECOND | P | W, 4)
    put(ram, SECOND, 3, DATA | P, 4)
    put(ram, ROOT, 2, 0x800000 | 1 << 13 | LARGE | P | W, 4)
    memory = LinearMemory(ram, LEGACY)
    assert memory.read(0x403000, 1) == b"\1"
    assert memory.translate(0x812345) == 1 << 32 | 0x812345  # PSE-36: bits 13 up are address bits 32 up
    assert memory.translate(0x404000) is None
    assert memory.translate(0) is None
    with pytest.raises(LinearFault):
        memory.write(0x403000, b"x")


def test_without_pse_a_large_entry_is_a_table(ram: GuestRam) -> None:
    put(ram, ROOT, 1, SECOND | P | W | LARGE, 4)
    put(ram, SECOND, 3, DATA | P, 4)
    assert LinearMemory(ram, replace(LEGACY, cr4=0)).translate(0x403004) == DATA + 4


def test_five_levels(ram: GuestRam) -> None:
    """CR4.LA57 adds a level above, and moves the canonical bound to bit 56 (SDM 4.5)."""
    top = 0x7000
    put(ram, top, 1, ROOT | P | W)
    low = long_tables(ram) & (1 << 48) - 1
    memory = LinearMemory(ram, replace(LONG, cr3=top, cr4=LONG.cr4 | 1 << 12))
    assert memory.translate(1 << 48 | low) == DATA
    assert memory.translate(2 << 48 | low) is None
    assert memory.translate(1 << 56 | low) is None


@pytest.mark.parametrize("size", [PAGE, 3 * PAGE])
def test_the_fault_names_the_first_byte_that_is_missing(ram: GuestRam, size: int) -> None:
    with pytest.raises(LinearFault) as caught:
        LinearMemory(ram, FLAT).read((1 << 24) - 0x800, size)
    assert caught.value.address == 1 << 24
    with pytest.raises(LinearFault) as caught:
        LinearMemory(ram, FLAT).write((1 << 24) - 0x800, bytes(size))
    assert caught.value.address == 1 << 24
