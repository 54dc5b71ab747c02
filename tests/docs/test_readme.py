"""The README's Python runs as it stands there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pvh
from docs.transcript import bodies

README = Path(__file__).resolve().parents[2] / "README.md"
PROGRAM, TEST = bodies(README.read_text(encoding="utf-8"), "python")


def test_the_example_runs() -> None:
    exec(compile(PROGRAM, str(README), "exec"), {})


def test_the_test_of_a_kernel_passes_and_has_at_most_ten_lines(tmp_path: Path) -> None:
    assert len(TEST.splitlines()) <= 10
    (tmp_path / "test_kernel.py").write_text(TEST, encoding="utf-8")
    shutil.copy(pvh.demo_path(), tmp_path / "kernel.elf")
    words = [sys.executable, "-m", "pytest", "-W", "error", "--strict-markers", "-p", "no:cacheprovider"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
