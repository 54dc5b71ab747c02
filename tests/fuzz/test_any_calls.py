"""Random hypercalls of every number by guests: a share of the million of `make accept` (issue 4, acceptance 5).

A seed that broke something is a line of SEEDS.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest
from bench.accept import inside

from fuzz.run_any_calls import Campaign, Run, run
from pvh.abi import hypercall as abi
from pvh.outcome import Outcome
from pvh.xen.dispatch import HANDLERS
from smp.boot import engine_of

CALLS = 3000
CALLS_KVM = 500
CALLS_NESTED = 2000
SEEDS = (1, 2)


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("seed", SEEDS)
def test_calls_give_errnos_and_the_machine_goes_on(seed: int, bits: int) -> None:
    engine, why_not = engine_of("emulator")
    assert engine, why_not
    one = run(engine, seed, CALLS, bits)
    assert one.fault() is None
    assert not one.early, one.last
    assert {name for name, _, _ in one.results} >= {abi.NAMES[number] for number in HANDLERS}
    assert {name for name, _, said in one.results if said == "ok"} >= {
        "memory_op", "multicall", "set_timer_op", "xen_version", "console_io", "grant_table_op", "vcpu_op", "sched_op",
        "event_channel_op",
    }  # fmt: skip


def test_they_do_on_kvm() -> None:
    engine, why_not = engine_of("kvm")
    if engine is None:
        pytest.skip(why_not)
    campaign = Campaign(engine)
    campaign.go(2 * CALLS_KVM, CALLS_KVM, 1)
    assert campaign.faults == []
    assert set(campaign.widths) == {32, 64}


@pytest.mark.nested
def test_they_do_on_a_genuine_kvm() -> None:
    said = inside(
        "tests/fuzz/inside.py", "run_any_calls", "--calls", str(CALLS_NESTED), "--each", str(CALLS_NESTED // 4)
    )
    report = json.loads(said[said.index("{") :])
    assert report["faults"] == []
    assert report["calls"] >= CALLS_NESTED


def test_what_is_a_fault() -> None:
    def one(said: str, ending: str) -> str | None:
        outcome = Outcome(ending, 0, "why", "emulator", None, None, (), (), (), 0.0, ())  # type: ignore[arg-type]
        return Run(1, 64, Counter({("sched_op", 2, said): 1}), outcome, None).fault()

    assert one("ok", "exit-port") is one("EINVAL", "crash") is one("ok", "triple-fault") is None
    assert "no errno" in (one("odd", "exit-port") or "")
    assert "why" in (one("ok", "engine") or "")
    assert "deadline" in (one("ok", "deadline") or "")
