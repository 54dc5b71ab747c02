"""Guest RAM: what a guest makes up gives None or False, never an exception."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pvh.build.ram import GuestRam
from pvh.errors import EngineError

LOW, HIGH = 0x4000, 1 << 32


@pytest.fixture
def ram() -> Iterator[GuestRam]:
    made = GuestRam(((0, LOW), (HIGH, LOW)))
    yield made
    made.close()


def test_it_starts_zero_and_keeps_what_is_written(ram: GuestRam) -> None:
    assert ram.read(0, LOW) == bytes(LOW)
    assert ram.write(HIGH + 5, b"stored")
    assert ram.read(HIGH + 4, 8) == b"\0stored\0"


@pytest.mark.parametrize(
    ("gpa", "size"),
    [(LOW, 1), (LOW - 1, 2), (HIGH - 1, 1), (HIGH + LOW, 1), (1 << 70, 1), (-1, 1), (0, -1), (0, 1 << 70)],
)
def test_ranges_that_are_not_all_memory_are_refused(ram: GuestRam, gpa: int, size: int) -> None:
    assert ram.block(gpa, size) is None
    assert ram.view(gpa, size) is None
    assert ram.read(gpa, size) is None


def test_a_store_that_does_not_fit_stores_nothing(ram: GuestRam) -> None:
    assert not ram.write(LOW - 2, b"over")
    assert ram.read(LOW - 2, 2) == bytes(2)


def test_a_view_writes_through(ram: GuestRam) -> None:
    view = ram.view(0x1000, 4)
    assert view
    view[:] = b"view"
    assert ram.read(0x1000, 4) == b"view"


def test_blocks_know_their_place(ram: GuestRam) -> None:
    block = ram.block(HIGH + LOW - 1, 1)
    assert block
    assert (block.gpa, block.size, block.end) == (HIGH, LOW, HIGH + LOW)


def test_host_addresses_are_where_the_bytes_are(ram: GuestRam) -> None:
    ram.write(HIGH + 8, b"here")
    host = ram.host_address(HIGH + 8, 4)
    assert host
    assert ctypes.string_at(host, 4) == b"here"
    assert ram.host_address(LOW, 1) is ram.host_address(LOW - 3, 4) is None
    assert ram.host_address(LOW - 4, 4)


def test_nothing_is_mapped_outside_memory(ram: GuestRam) -> None:
    fd = os.open(__file__, os.O_RDONLY)
    assert not ram.map_file(LOW, 0x1000, fd, 0)


def test_a_file_that_cannot_be_mapped_leaves_zeroes(ram: GuestRam) -> None:
    reading, _writing = os.pipe()
    ram.write(0x1000, b"old")
    assert not ram.map_file(0x1000, 0x1000, reading, 0)
    assert ram.read(0x1000, 3) == bytes(3)


def test_a_host_that_refuses_memory_is_an_engine_error_and_nothing_is_kept() -> None:
    with pytest.raises(EngineError, match=r"the host cannot give the guest \d+ MiB of memory"):
        GuestRam(((0, LOW), (HIGH, 1 << 60)))


def test_closed_memory_is_no_memory() -> None:
    ram = GuestRam(((0, LOW),))
    ram.close()
    assert ram.read(0, 1) is None


def test_a_page_is_added_where_there_is_no_memory() -> None:
    ram = GuestRam(((0, 0x2000), (0x8000, 0x1000)))
    block = ram.add(0x4000)
    assert block is not None
    assert [b.gpa for b in ram.blocks] == [0, 0x4000, 0x8000]
    assert ram.read(0x4000, 0x1000) == bytes(0x1000)
    assert ram.write(0x4FFF, b"x")
    assert not ram.write(0x5000, b"x")
    assert ram.add(0x4000) is ram.add(0x1000) is None
    ram.close()


GUARDED = {"small": (0x4000, 0x4000), "large": (0x1000, 0x400000), "at 0": (0, 0x200000), "added": (0x9000, 0x1000)}


@pytest.mark.parametrize("kind", GUARDED)
@pytest.mark.parametrize("side", ["before", "behind"])
@pytest.mark.parametrize("distance", [1, 4096])
def test_who_goes_past_the_accessor_dies_at_the_guards(kind: str, side: str, distance: int) -> None:
    """Bytes on both sides, of RAM and of pages added to it, are nobody's: the accessor refuses them, a pointer dies."""
    gpa, size = GUARDED[kind]
    code = (
        "import ctypes; from pvh.build.ram import GuestRam\n"
        f"ram = GuestRam(((0x1000, 0x2000),)) if {kind == 'added'} else GuestRam((({gpa}, {size}),))\n"
        f"block = ram.add({gpa}) if {kind == 'added'} else ram.blocks[0]\n"
        f"at = -{distance} if {side == 'before'} else {size} + {distance} - 1\n"
        "assert ram.read(block.gpa + at, 1) is ram.host_address(block.gpa + at, 1) is None\n"
        f"ctypes.string_at(block.host, 1), ctypes.string_at(block.host + {size} - 1, 1), print('inside', flush=True)\n"
        "ctypes.string_at(block.host + at, 1), print('outside')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGSEGV, "inside\n"), done.stderr


def test_large_pages_lie_for_the_host_as_for_the_guest() -> None:
    ram = GuestRam(((0, 0x400000), (0x40003000, 0x600000)))
    assert [(block.host - block.gpa) % 0x200000 for block in ram.blocks] == [0, 0]
    ram.close()


def test_nothing_stays_mapped() -> None:
    def mappings() -> int:
        with open("/proc/self/maps", encoding="ascii") as stream:
            return sum(1 for _ in stream)

    def once() -> None:
        ram = GuestRam(((0, 0x400000), (1 << 32, 0x3000)))
        assert ram.add(0x800000)
        ram.close()

    once()
    before = mappings()
    for _ in range(20):
        once()
    assert mappings() <= before + 3  # the allocator's own
