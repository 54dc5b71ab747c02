"""No event is lost between two vCPUs that mask and unmask and a host that sends (issue 4, acceptance 5)."""

from __future__ import annotations

import json

import pytest
from bench.accept import inside

from fuzz.run_chanmask import BURST, run
from pvh.xen import atomics
from pvh.xen.events import Events
from smp.boot import engine_of

EVENTS = 10_000
EVENTS_KVM = 3_000
EVENTS_NESTED = 10_000


def test_no_event_is_lost_and_no_mask_undone() -> None:
    engine, why_not = engine_of("emulator")
    assert engine, why_not
    one = run(engine, EVENTS)
    assert one.faults() == []
    assert one.sent == EVENTS
    assert one.bursts >= EVENTS // BURST
    assert one.coalesced, "some were sent to a port that was pending"
    assert min(one.counters["toggles"]) > 1000, "both vCPUs masked and unmasked"
    assert min(one.counters["hypercalls"]) > 500


def test_none_is_on_kvm() -> None:
    engine, why_not = engine_of("kvm")
    if engine is None:
        pytest.skip(why_not)
    one = run(engine, EVENTS_KVM)
    assert one.faults() == []
    assert min(one.counters["toggles"]) > 100


@pytest.mark.nested
def test_none_is_on_a_genuine_kvm() -> None:
    said = inside("tests/fuzz/inside.py", "run_chanmask", "--events", str(EVENTS_NESTED))
    report = json.loads(said[said.index("{") :])
    assert report["faults"] == []
    assert report["events"] == EVENTS_NESTED


def test_an_unmask_that_tells_nobody_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The measure itself: without the upcall of EVTCHNOP_unmask, an event stays unseen until another comes."""
    engine, why_not = engine_of("emulator")
    assert engine, why_not

    def unmask(self: Events, port: int) -> None:
        atomics.test_and_clear_bit(self._shared.mask, port)

    monkeypatch.setattr(Events, "unmask", unmask)
    monkeypatch.setattr("fuzz.run_chanmask.SECONDS", 1.0)
    one = run(engine, EVENTS, timeout=60)
    assert one.lost
    assert "no handler saw" in one.faults()[0]


def test_a_mask_that_is_undone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The measure itself: an unmask that writes its neighbours' bits as it read them before."""
    engine, why_not = engine_of("emulator")
    assert engine, why_not
    unmask = Events.unmask

    def clumsy(self: Events, port: int) -> None:
        unmask(self, port)
        for neighbour in (port - 1, port + 1):
            if atomics.test_and_clear_bit(self._shared.mask, neighbour):
                self._select(neighbour)

    monkeypatch.setattr(Events, "unmask", clumsy)
    one = run(engine, 2_000, timeout=60)
    assert any("undone" in fault for fault in one.faults())
