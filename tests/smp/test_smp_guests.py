"""Guests with several processors: their sums are right, they end, and a vCPU that is down costs nothing (issue 3).

Each test of a guest is repeated, for a race does not show itself every time: PVH_SMP_RUNS times, 5 unless it is set.
"""

from __future__ import annotations

import os
import time

import pytest

from pvh.engines.engine import Engine
from pvh.plan.options import EngineName
from smp.boot import boot, engine_of
from smp.expect import CALLBACK, SELFMOD, STORM, summary

RUNS = range(int(os.environ.get("PVH_SMP_RUNS", "5")))


@pytest.fixture
def emulator() -> Engine:
    engine, why_not = engine_of("emulator")
    assert engine, why_not
    return engine


@pytest.fixture
def kvm() -> Engine:
    engine, why_not = engine_of("kvm")
    if engine is None:
        pytest.skip(why_not)
    return engine


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("vcpus", [1, 2, 4, 8, 32])
def test_every_vcpu_counts_interrupts_stops_and_resumes(vcpus: int, run: int, emulator: Engine) -> None:
    """LOCKed sums, private sums, IPIs, registers kept across down, from each mode (vcpu.h)."""
    said, outcome = boot("smp", emulator, vcpus)
    assert said == summary(vcpus), (run, outcome.reason)
    assert outcome.ending == "poweroff"


def test_more_vcpus_than_the_guest_starts_are_counted(emulator: Engine) -> None:
    said, outcome = boot("smp", emulator, 40)
    assert said == summary(40), outcome.reason


def test_without_pae_the_guest_starts_another_mode(emulator: Engine) -> None:
    said, outcome = boot("smp", emulator, 5, "nopae")
    assert said == summary(5, pae=False), outcome.reason


@pytest.mark.parametrize("run", RUNS)
def test_a_callback_vector_comes_as_long_as_an_upcall_is_pending(run: int, emulator: Engine) -> None:
    """No EOI, past the local APIC, and again while evtchn_upcall_pending is set (xen: arch/x86/hvm/irq.c)."""
    said, outcome = boot("callback", emulator, 2)
    assert said == CALLBACK, (run, outcome.reason)
    assert outcome.ending == "poweroff"


@pytest.mark.parametrize("run", RUNS)
def test_a_callback_vector_does_on_kvm(run: int, kvm: Engine) -> None:
    """With LINT0 as ExtINT, and masked where KVM tells nobody that interrupts were enabled, on the BSP and on an AP."""
    said, outcome = boot("callback", kvm, 2)
    assert said == CALLBACK, (run, outcome.reason)
    assert outcome.ending == "poweroff"


@pytest.mark.parametrize("run", RUNS)
def test_code_that_another_vcpu_changed_is_what_executes(run: int, emulator: Engine) -> None:
    """By INT3 and by an interrupt that holds the other (Intel SDM vol. 3, 9.1.3)."""
    said, outcome = boot("selfmod", emulator, 2)
    assert said == SELFMOD, (run, outcome.reason)
    assert outcome.ending == "poweroff"


class Idleness:
    """Measures this process's CPU time while the guest says that it sleeps."""

    def __init__(self) -> None:
        self._heard = b""
        self._since: tuple[float, float] | None = None
        self.share = -1.0  # of the wall time

    def hear(self, data: bytes) -> None:
        """Look for the lines before and behind the sleep."""
        self._heard += data
        if self._since is None and b"storm.idle" in self._heard:
            self._since = time.process_time(), time.monotonic()
        elif self._since and self.share < 0 and b"storm.end" in self._heard:
            cpu, wall = self._since
            self.share = (time.process_time() - cpu) / max(1e-3, time.monotonic() - wall)


def storm(name: EngineName) -> tuple[str, float, str]:
    engine, why_not = engine_of(name)
    if engine is None:
        pytest.skip(why_not)
    idle = Idleness()
    said, outcome = boot("storm", engine, 3, hear=idle.hear)
    assert outcome.ending == "poweroff", outcome.reason
    return said, idle.share, outcome.reason


def test_a_storm_of_up_and_down_ends_in_the_last_state_and_idle() -> None:
    said, share, reason = storm("emulator")
    assert said == STORM, reason
    assert 0 <= share < 0.25


def test_a_storm_on_kvm_ends_so_too() -> None:
    said, share, reason = storm("kvm")
    assert said == STORM, reason
    assert 0 <= share < 0.25


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("vcpus", [1, 2, 3])
def test_it_is_so_on_kvm(vcpus: int, run: int, kvm: Engine) -> None:
    """Real mode and flat APs: what this kind of machine's KVM starts for certain. The rest is tests/nested's."""
    said, outcome = boot("smp", kvm, vcpus)
    assert said == summary(vcpus), (run, outcome.reason)
