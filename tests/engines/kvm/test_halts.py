"""HLT with interrupts off ends a run, though KVM does not report it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engines.kvm.halts import HALTS
from pvh.engines.kvm.engine import KvmEngine


@pytest.mark.parametrize("case", HALTS, ids=lambda case: case.__name__)
def test_a_halt(case: Callable[[KvmEngine], None], kvm_engine: KvmEngine) -> None:
    case(kvm_engine)
