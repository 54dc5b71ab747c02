"""Sizes as people type them."""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from pvh import demo_path
from pvh.cli import main
from pvh.cli.options import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("65536", 65536),
        ("7b", 7),
        ("64k", 64 << 10),
        ("512M", 512 << 20),
        ("512 MiB", 512 << 20),
        (" 2GB ", 2 << 30),
        ("2gib", 2 << 30),
        ("1T", 1 << 40),
    ],
)
def test_units_are_powers_of_two(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "M", "-1", "1.5G", "0x10", "5x", "5i", "5ki", "5Mbb", "5bM", "1 2", "5 M B", "\u0661M"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is no size: write 512M or 2GiB"):
        parse_size(text)


COMMANDS = (["inspect", "--json"], ["plan", "--json"], ["check", "--profile", "kind", "--json"], ["run"])


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
class TestDemo:
    """The kernel that comes with pvh has a name, wherever a kernel is named, and it is never taken for a file."""

    def test_it_needs_no_path(self, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        command = [sys.executable, "-m", "pvh", *words, "demo"]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert demo_path() in done.stdout or "Hello from PVH" in done.stdout

    def test_a_file_of_that_name_is_asked_about(
        self, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "demo").write_text("a text")
        assert main([*words, "demo"]) == 2
        said = capsys.readouterr()
        assert "write ./demo for the file" in said.out + said.err
        assert main([*words, "./demo"]) == 20
