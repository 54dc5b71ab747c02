"""`pvh inspect --picture`: segments where they lie, in any width, in whatever characters a terminal has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from elfwriter import Elf, Load, entry_note, notes
from pvh.cli.picture import ASCII, BLOCKS, glyphs, picture
from pvh.demo import demo_path
from pvh.kernel.read import read_kernel
from pvh.kernel.record import Kernel

MIB = 1 << 20
LOADS = (
    Load(paddr=16 * MIB, data=b"x", memsz=8 * MIB, flags=5),
    Load(paddr=24 * MIB, data=b"x", memsz=MIB, flags=6),
    Load(paddr=32 * MIB, data=b"x", memsz=4096, flags=4),
)
HEAD = "where they lie"


def kernel(tmp_path: Path, *loads: Load) -> Kernel:
    path = tmp_path / "vmlinux"
    path.write_bytes(Elf((*loads, notes(entry_note()))).build())
    return read_kernel(str(path))


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("ink", [BLOCKS, ASCII])
def test_every_width_has_every_segment_and_gap(tmp_path: Path, width: int, ink: str) -> None:
    lines = picture(kernel(tmp_path, *LOADS), width, ink)
    assert max(map(len, lines)) <= width
    rows = [line.split() for line in lines[1:]]
    assert [row[0] for row in rows] == ["0x0", "0x1000000", "0x1800000", "0x1900000", "0x2000000"]
    assert [set(row[1]) for row in rows] == [{ink[kind]} for kind in (3, 0, 1, 3, 2)]
    assert [row[2:] for row in rows] == [
        ["16", "MiB"], ["8", "MiB", "0", "R-X"], ["1", "MiB", "1", "RW-"], ["7", "MiB"], ["4", "KiB", "2", "R--"],
    ]  # fmt: skip
    bars = [(line.index(row[1]), len(row[1])) for line, row in zip(lines[1:], rows, strict=True)]
    assert all(at <= after for (at, _), (after, _) in pairwise(bars))
    assert bars[0][1] >= bars[1][1] > bars[2][1] >= bars[4][1] >= 1
    assert bars[0][1] < 4 * bars[2][1]  # sixteen times the size


def test_a_wider_terminal_has_a_longer_axis_without_holes(tmp_path: Path) -> None:
    for width in (60, 100, 200):
        lines = picture(kernel(tmp_path, *LOADS), width, ASCII)[1:]
        bars = [line.split()[1] for line in lines]
        start = lines[0].index(bars[0])
        ends = [line.index(bar, 12) + len(bar) for line, bar in zip(lines, bars, strict=True)]
        assert [line.index(bar, 12) for line, bar in zip(lines, bars, strict=True)] == [start, *ends[:-1]]


def test_segments_that_overlap_are_drawn_one_above_the_other(tmp_path: Path) -> None:
    over = Load(paddr=17 * MIB, data=b"x", memsz=MIB, flags=6)
    lines = picture(kernel(tmp_path, LOADS[0], over), 80, ASCII)
    outer, inner = lines[2], lines[3]
    assert outer.index("#") < inner.index("=") < inner.rindex("=") < outer.rindex("#")


def test_a_file_with_very_many_segments_gets_a_small_picture(tmp_path: Path) -> None:
    loads = [Load(paddr=MIB * (1 + 2 * at), data=b"x", memsz=MIB, flags=5) for at in range(200)]
    lines = picture(kernel(tmp_path, *loads), 80, ASCII)
    assert len(lines) == 26
    assert lines[-1] == "  and 376 more"


def test_nothing_that_loads_is_no_picture(tmp_path: Path) -> None:
    assert picture(kernel(tmp_path), 80, ASCII) == []


@pytest.mark.parametrize(("encoding", "ink"), [
    ("utf-8", BLOCKS), ("latin-1", ASCII), ("ascii", ASCII), ("cp1252", ASCII), ("no-such-thing", ASCII),
])  # fmt: skip
def test_what_an_encoding_lacks_is_drawn_in_ascii(encoding: str, ink: str) -> None:
    assert glyphs(encoding) == ink


def inspect(*words: str, **settings: str) -> str:
    settings = {**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8", **settings}
    words = (sys.executable, "-m", "pvh", "inspect", *words, demo_path())
    done = subprocess.run(words, capture_output=True, check=True, env=settings)
    assert done.stderr == b""
    return done.stdout.decode(settings["PYTHONIOENCODING"])


def test_the_option_draws_where_no_terminal_is() -> None:
    assert HEAD not in inspect()
    assert "█" in inspect("--picture")
    assert "#" in inspect("--picture", PYTHONIOENCODING="latin-1").partition(HEAD)[2]
    assert json.loads(inspect("--picture", "--json"))["verdict"] == "bootable"


def test_a_terminal_gets_it_without_being_asked_and_without_colour() -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    try:
        settings = {**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
        words = [sys.executable, "-m", "pvh", "inspect", demo_path()]
        subprocess.run(words, stdout=theirs, check=True, env=settings)
        told = os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "█" in told.partition(HEAD)[2]
    assert "\x1b" not in told
