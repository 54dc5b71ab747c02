"""The guest's TSC computed from the host's."""

from __future__ import annotations

import time
from typing import cast

import pytest

from pvh import native
from pvh.engines.kvm.clock import GuestClock
from pvh.engines.kvm.vcpu import KvmVcpu


class Counter:
    """A vCPU as far as a clock asks it: its TSC runs like the host's, from somewhere else."""

    tsc_khz = 2_000_000

    def __init__(self, offset: int) -> None:
        read = native.rdtsc()
        self.offset = offset
        self.host = read or (lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) * 2)

    def tsc(self) -> int:
        return self.host() + self.offset & (1 << 64) - 1


@pytest.mark.parametrize("offset", [0, 1 << 50, -(1 << 40), -(1 << 62)])
@pytest.mark.parametrize("native_code", [True, False])
def test_it_agrees_with_the_guests_counter(monkeypatch: pytest.MonkeyPatch, offset: int, *, native_code: bool) -> None:
    """A fresh vCPU's TSC starts at 0 (RESET), wherever the host's is."""
    if not native_code:
        monkeypatch.setattr(native, "rdtsc", lambda: None)
    counter = Counter(offset)
    clock = GuestClock(cast("KvmVcpu", counter))
    before = counter.tsc()
    now = clock.now()
    after = counter.tsc()
    slack = 200_000 if native_code else 1 << 23  # ticks: the comparison's own duration on a busy machine
    assert (now - before + slack) % (1 << 64) <= (after - before + 2 * slack) % (1 << 64)
