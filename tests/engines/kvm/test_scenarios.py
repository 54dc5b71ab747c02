"""Small guests on this host's KVM, and on a genuine one inside QEMU (make test-more)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.kvm.halts import HALTS
from engines.kvm.keeping import KEEPING
from engines.kvm.scenarios import SCENARIOS
from pvh.engines.kvm.engine import KvmEngine


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_guest_sees(scenario: Callable[[KvmEngine], None], kvm_engine: KvmEngine) -> None:
    scenario(kvm_engine)


@pytest.mark.nested
def test_every_guest_on_a_genuine_kvm(root: Path) -> None:
    words = ["-m", "tools.nested.run", "--timeout", "300", "--", "tests/engines/kvm/nested.py"]
    done = subprocess.run([sys.executable, *words], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [f"ok {scenario.__name__}" for scenario in (*SCENARIOS, *HALTS, *KEEPING)], (
        done.stderr
    )
    assert done.returncode == 0
