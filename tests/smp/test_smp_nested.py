"""The SMP guests and the table of vcpu_op cases on the genuine KVM, inside QEMU TCG (issue 3, acceptance 1 and 2)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.nested


def wrong_inside(root: Path, *guests: str) -> dict[str, list[str]]:
    """Run guests inside; return what each did wrong."""
    words = ["-m", "tools.nested.run", "--timeout", "600", "--", "tests/smp/inside.py", *guests]
    done = subprocess.run([sys.executable, *words], cwd=root, capture_output=True, text=True, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [case["guest"] for case in found] == list(guests), (done.returncode, done.stdout, done.stderr)
    return {case["guest"]: case["wrong"] for case in found if case["wrong"]}


def test_each_mode_starts_counts_stops_and_resumes(root: Path) -> None:
    assert wrong_inside(root, "smp:1", "smp:2", "smp:4", "smp:7") == {}


def test_code_that_another_vcpu_changed_is_what_executes(root: Path) -> None:
    assert wrong_inside(root, "selfmod:2") == {}


def test_a_storm_ends_in_the_last_state(root: Path) -> None:
    assert wrong_inside(root, "storm:3") == {}


def test_a_callback_vector_passes_by_the_local_apic(root: Path) -> None:
    """With LINT0 masked, without EOI, on the BSP and on an AP, awake and asleep: every event, none early."""
    assert wrong_inside(root, "callback:2", "callback:2", "callback:2") == {}


def test_every_case_of_vcpu_op_is_as_xen_answers_it(root: Path) -> None:
    assert wrong_inside(root, "vcpuop:9") == {}
