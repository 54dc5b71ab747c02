"""docs/pvh.1 is what the commands say of themselves."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from tools.manual import PAGE, page

from pvh.cli import COMMANDS


def test_the_manual_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tools.manual"


def test_man_reads_it_without_a_warning() -> None:
    if shutil.which("man") is None:
        pytest.skip("no man here")
    words = ["man", "--warnings", "-l", str(PAGE)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env={"MANWIDTH": "100", "LC_ALL": "C"})
    assert done.stderr == ""
    assert all(f"pvh {command}" in done.stdout for command in COMMANDS)
