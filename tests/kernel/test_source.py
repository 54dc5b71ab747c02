"""Where bytes come from: files, standard input, pipes; and what cannot be read."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from elfwriter import entry_note, kernel
from pvh.errors import UsageError
from pvh.kernel import source as sources
from pvh.kernel.read import read_kernel
from pvh.kernel.source import BytesSource, FileSource, open_source

PLAIN = kernel(entry_note())


def test_a_file_is_read_in_place(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(PLAIN)
    source = open_source(str(path))
    assert isinstance(source, FileSource)
    assert (source.size, source.read(1, 3), source.read(len(PLAIN) - 1, 9)) == (len(PLAIN), b"ELF", PLAIN[-1:])
    assert source.read(len(PLAIN), 5) == source.read(len(PLAIN) + 5, 5) == b""
    assert source.path == str(path)
    assert read_kernel(str(path)).bootable


@pytest.mark.parametrize("change", ["grow", "cut", "rewrite", "touch"])
def test_a_changed_file_is_told(tmp_path: Path, change: str) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(PLAIN)
    source = open_source(str(path))
    assert isinstance(source, FileSource)
    assert not source.changed()
    if change == "grow":
        path.write_bytes(PLAIN + b"x")
    elif change == "cut":
        os.truncate(path, 5)
        assert source.read(0, 100) == PLAIN[:5]
    elif change == "rewrite":
        path.write_bytes(PLAIN[::-1])
        os.utime(path, ns=(1, 1))
    else:
        os.utime(path, ns=(1, 1))
    assert source.changed()


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(PLAIN)
    real = os.dup
    with path.open("rb") as stream:

        def dup(fd: int) -> int:
            return real(stream.fileno() if fd == 0 else fd)

        monkeypatch.setattr(os, "dup", dup)
        source = open_source("-")
    assert isinstance(source, BytesSource)
    assert (source.path, source.size) == ("standard input", len(PLAIN))


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(PLAIN,))
    writer.start()
    assert read_kernel(str(fifo)).bootable
    writer.join()


def test_an_endless_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "STREAM_LIMIT", 1 << 16)
    with pytest.raises(UsageError, match="gives more than a kernel can be"):
        open_source("/dev/zero")


def test_what_the_limit_allows_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "STREAM_LIMIT", len(PLAIN))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(PLAIN,))
    writer.start()
    assert open_source(str(fifo)).size == len(PLAIN)
    writer.join()


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory") as caught:
        open_source(str(tmp_path))
    assert caught.value.status == 2


@pytest.mark.parametrize("name", ["absent", "x" * 300, "file/in/a/file"])
def test_what_cannot_be_opened(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot read it: ") as caught:
        open_source(str(tmp_path / name))
    assert caught.value.path == str(tmp_path / name)


def test_a_name_with_a_nul() -> None:
    with pytest.raises(UsageError, match="cannot read it"):
        open_source("a\0b")
