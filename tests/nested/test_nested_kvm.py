"""The KVM engine against the genuine kvm-amd with nested paging, inside QEMU TCG (tools/nested)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.nested


def inside(root: Path, script: str, *arguments: str, timeout: int = 600) -> subprocess.CompletedProcess[str]:
    """Run a script of this folder inside."""
    words = ["-m", "tools.nested.run", "--timeout", str(timeout), f"tests/nested/{script}", *arguments]
    return subprocess.run([sys.executable, *words], cwd=root, capture_output=True, text=True, check=False)


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Return the JSON lines that a script printed; show everything if there are none."""
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert found, (done.returncode, done.stdout, done.stderr)
    return found


def test_the_machine_inside_runs_guests(root: Path) -> None:
    done = inside(root, "halt.py", timeout=120)
    assert done.returncode == 0, done.stderr
    assert lines(done) == [{"api": 12, "svm": True, "written": [5], "reasons": [2, 5]}]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["status.py", "exit", "3"], 3, ""),
        (["status.py", "raise"], 1, "RuntimeError: as told"),
        (["status.py", "kill"], 109, ""),  # 100 + SIGKILL
        (["status.py", "sleep"], 124, "not done after"),
    ],
)
def test_a_failure_inside_is_a_failure_outside(root: Path, words: list[str], status: int, said: str) -> None:
    done = inside(root, *words, timeout=15)
    assert done.returncode == status, done.stderr
    assert said in done.stdout + done.stderr
