"""The KVM engine against the genuine kvm-amd with nested paging, inside QEMU TCG (tools/nested)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from entry.matrix import cases

pytestmark = pytest.mark.nested


def inside(root: Path, script: str, *arguments: str, timeout: int = 600) -> subprocess.CompletedProcess[str]:
    """Run a script, or a module, inside."""
    words = ["-m", "tools.nested.run", "--timeout", str(timeout), "--", script, *arguments]
    return subprocess.run([sys.executable, *words], cwd=root, capture_output=True, text=True, check=False)


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Return the JSON lines that a script printed; show everything if there are none."""
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert found, (done.returncode, done.stdout, done.stderr)
    return found


def test_the_machine_inside_runs_guests(root: Path) -> None:
    done = inside(root, "tests/nested/halt.py", timeout=120)
    assert done.returncode == 0, done.stderr
    assert lines(done) == [{"api": 12, "svm": True, "written": [5], "reasons": [2, 5]}]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["tests/nested/status.py", "exit", "3"], 3, ""),
        (["tests/nested/status.py", "raise"], 1, "RuntimeError: as told"),
        (["tests/nested/status.py", "kill"], 109, ""),  # 100 + SIGKILL
        (["tests/nested/status.py", "sleep"], 124, "not done after"),
    ],
)
def test_a_failure_inside_is_a_failure_outside(root: Path, words: list[str], status: int, said: str) -> None:
    done = inside(root, *words, timeout=30 if "sleep" in words else 120)
    assert done.returncode == status, done.stderr
    assert said in done.stdout + done.stderr


def test_the_entry_state_is_the_abis_for_the_whole_matrix(root: Path) -> None:
    done = inside(root, "tests/nested/entry_matrix.py")
    probe, *found = lines(done)
    assert probe == {"failing": []}
    assert [case["case"] for case in found] == [case.name for case in cases() if not case.ring3]
    assert [case for case in found if case["wrong"]] == []
    assert done.returncode == 0, done.stderr


def test_the_command_runs_a_guest(root: Path) -> None:
    done = inside(root, "-m", "pvh", "run", "--engine", "kvm", "tests/guests/hello.elf", timeout=120)
    *notes, said, ending = done.stdout.splitlines()
    assert (done.returncode, said) == (0, "Hello from PVH"), done.stderr
    assert "wrote 0 to exit port 0xf4" in ending
    # Standard input is the machine's console there. A genuine KVM has no failing checks to warn of.
    assert notes == ["pvh: every key goes to the guest; ^] leaves it"]
