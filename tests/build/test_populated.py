"""What of guest RAM may hold anything: everything that is not zero, and not much more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvh.build import populated as module
from pvh.build.populated import populated
from pvh.build.ram import GuestRam

MIB = 1 << 20
HIGH = 1 << 32


@pytest.fixture
def ram() -> Iterator[GuestRam]:
    made = GuestRam(((0, 200 * MIB), (HIGH, 0x21000)))
    yield made
    made.close()


@pytest.fixture(params=["pagemap", "empty pagemap", "no pagemap"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    other = {"empty pagemap": "/dev/null", "no pagemap": "/nonexistent"}.get(request.param)
    if other:
        monkeypatch.setattr(module, "PAGEMAP", other)
    return str(request.param)


def test_untouched_memory_is_left_out(ram: GuestRam, way: str) -> None:
    del way
    assert list(populated(ram)) == []


def test_touched_pages_are_found_in_order(ram: GuestRam, way: str) -> None:
    ram.write(0x5FF8, b"across  " * 2)
    ram.write(64 * MIB - 1, b"step")  # on both sides of the border between two looks
    ram.write(HIGH + 0x20FFF, b"!")
    found = list(populated(ram))
    if way == "pagemap":
        assert found == [
            (0x5000, 0x2000), (64 * MIB - 0x1000, 0x1000), (64 * MIB, 0x1000), (HIGH + 0x20000, 0x1000),
        ]  # fmt: skip
    else:
        assert found == [
            (0, 0x10000), (64 * MIB - 0x10000, 0x10000), (64 * MIB, 0x10000), (HIGH + 0x20000, 0x1000),
        ]  # fmt: skip


def test_a_mapped_file_counts_before_anybody_read_it(ram: GuestRam, way: str, tmp_path: Path) -> None:
    del way
    path = tmp_path / "initrd"
    path.write_bytes(b"file" * MIB)
    fd = os.open(path, os.O_RDONLY)
    assert ram.map_file(62 * MIB, 4 * MIB, fd, 0)
    assert list(populated(ram)) == [(62 * MIB, 2 * MIB), (64 * MIB, 2 * MIB)]
    os.close(fd)
