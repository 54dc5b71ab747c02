"""Random vcpu_op calls by a guest: a share of what `make accept` runs a million of (issue 3, acceptance 3).

A seed that broke something is a line of SEEDS.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest
from bench.accept import inside

from fuzz.run_vcpu_fuzz import CALLERS, END, NAMES, Campaign, Run, run
from pvh.outcome import Outcome
from smp.boot import engine_of

CALLS = 5000
SEEDS = (1, 0x0CF06D60, 0x8E625FC9)


@pytest.mark.parametrize("seed", SEEDS)
def test_calls_give_errnos_and_the_guest_its_own_end(seed: int) -> None:
    engine, why_not = engine_of("emulator")
    assert engine, why_not
    one = run(engine, seed, CALLS // len(SEEDS))
    assert one.fault() is None
    assert one.complete or one.risky, one.outcome.reason
    assert {op for op, _ in one.results} == set(NAMES)
    assert all(one.callers), "each caller had its turn"
    assert set(one.results) <= {(op, result) for op in NAMES for result in (0, 1, -2, -14, -16, -17, -22, -38, -6, -13)}
    if one.complete:
        printed = sum(int(line.partition("=")[2]) for line in one.said.splitlines() if line[:1].isdigit())
        assert printed == sum(one.results.values())


def test_they_do_on_kvm() -> None:
    engine, why_not = engine_of("kvm")
    if engine is None:
        pytest.skip(why_not)
    campaign = Campaign(engine, "nopaged")  # a KVM without hardware below has no way into paged 32-bit code
    campaign.go(CALLS // 5, CALLS // 5, 1)
    assert campaign.faults == []
    assert campaign.calls >= CALLS // 5


@pytest.mark.nested
def test_they_do_on_a_genuine_kvm() -> None:
    said = inside("tests/fuzz/inside.py", "run_vcpu_fuzz", "--calls", str(CALLS), "--each", str(CALLS // 5))
    report = json.loads(said[said.index("{") :])
    assert report["faults"] == []
    assert report["calls"] >= CALLS
    assert all(report["callers"].values())


def outcome(ending: str, reason: str = "") -> Outcome:
    return Outcome(ending, 0, reason, "emulator", None, None, (), (), (), 0.0, ())  # type: ignore[arg-type]


def made(said: str, ended: Outcome, **changed: int) -> Run:
    counts = {"risky": 0, "odd": 0, "calls": 3} | changed
    callers = (counts["calls"], *(0,) * (len(CALLERS) - 1))
    return Run(1, Counter({(3, 1): 3}), callers, counts["risky"], counts["odd"], said, ended)


def test_what_is_a_fault() -> None:
    whole, early = outcome("poweroff"), outcome("poweroff", "gone")
    assert made(END, whole).fault() is None
    assert made("", early).fault() == "it ended by poweroff: gone"
    assert made("", early, risky=1).fault() is None
    assert made("", outcome("deadline", "late")).fault() == "it ended by deadline: late"
    assert made("", outcome("engine", "a defect"), risky=1).fault() == "it ended by engine: a defect"
    assert made("", outcome("engine", "vCPU 4: KVM cannot go on"), risky=1).fault() is None
    assert made(END, whole, odd=1).fault() == "1 results are no errno"
    assert made(END, whole, calls=2).fault() == "calls were lost"
    assert made(END, whole, calls=8).fault() == "calls were lost"
    assert made(END, whole, calls=8, risky=1).fault() is None
    assert made(END, whole, calls=7).fault() is None, "each caller was stopped between its two counters"
