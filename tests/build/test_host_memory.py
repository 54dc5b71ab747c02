"""Host memory as Linux gives it, and as Python gives it anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pvh.abi.x86 import PAGE_SIZE
from pvh.build.host_memory import LinuxMemory, PlainMemory


@pytest.mark.parametrize("kind", [PlainMemory, LinuxMemory])
def test_memory_is_zeroes_and_can_be_so_again(kind: type[PlainMemory | LinuxMemory]) -> None:
    memory = kind()
    area = memory.reserve(0x100000, 2 * PAGE_SIZE)
    assert bytes(area.view) == bytes(2 * PAGE_SIZE)
    area.view[:] = b"x" * (2 * PAGE_SIZE)
    memory.zero(area.host + PAGE_SIZE, PAGE_SIZE)
    assert bytes(area.view) == b"x" * PAGE_SIZE + bytes(PAGE_SIZE)
    area.release()


@pytest.mark.parametrize("kind", [PlainMemory, LinuxMemory])
def test_a_files_bytes_are_there_and_writes_stay_private(kind: type[PlainMemory | LinuxMemory], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * PAGE_SIZE + b"b" * 100)
    memory = kind()
    area = memory.reserve(0, 2 * PAGE_SIZE)
    fd = os.open(path, os.O_RDONLY)
    try:
        memory.map(area.host, 2 * PAGE_SIZE, fd, 0)
        assert bytes(area.view) == b"a" * PAGE_SIZE + b"b" * 100 + bytes(PAGE_SIZE - 100)
        area.view[:4] = b"mine"
        assert path.read_bytes()[:4] == b"aaaa"
        memory.forget(area.host, PAGE_SIZE)
        assert bytes(area.view[:4]) == (b"aaaa" if memory.maps else bytes(4)), "what is below shows again"
    finally:
        os.close(fd)
        area.release()


def test_what_cannot_be_mapped_is_an_oserror() -> None:
    memory = LinuxMemory()
    area = memory.reserve(0, PAGE_SIZE)
    with pytest.raises(OSError, match="ad file descriptor"):
        memory.map(area.host, PAGE_SIZE, 12345, 0)
    with pytest.raises(OSError, match="annot allocate"):
        memory.reserve(0, 1 << 60)
    area.release()
