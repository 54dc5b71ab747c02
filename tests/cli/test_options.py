"""The kernel that comes with pvh has a name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pvh import demo_path
from pvh.cli import main

COMMANDS = (["inspect", "--json"], ["plan", "--json"], ["check", "--profile", "kind", "--json"], ["run"])


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
class TestDemo:
    """The kernel that comes with pvh has a name, wherever a kernel is named, and it is never taken for a file."""

    def test_it_needs_no_path(self, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "demo").mkdir()  # which is no kernel
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
