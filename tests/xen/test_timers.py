"""The timers of vcpu_op together (xen/common/sched/core.c: vcpu_singleshot_timer_fn, vcpu_periodic_timer_work)."""

from __future__ import annotations

import pytest

from pvh.abi.hypercall import EVENT_CHANNEL_OP, SET_TIMER_OP, VCPU_OP
from xen.guest import ARG, SPARE, Guest

SET_PERIODIC, STOP_PERIODIC, SET_SINGLESHOT, STOP_SINGLESHOT = 6, 7, 8, 9
RUNNING, BLOCKED = 0, 2
MS = 1_000_000


@pytest.fixture
def guest() -> Guest:
    """VIRQ_TIMER of both vCPUs is bound, to ports 3 and 4; vCPU 1 is up."""
    made = Guest(vcpus=2)
    made.domain.shared.map_at(SPARE >> 12)
    made.domain.apic_sipi(1, 0)
    for vcpu in (0, 1):
        assert made.op(EVENT_CHANNEL_OP, 1, "<III", 0, vcpu, 0) == 0
    return made


def at(guest: Guest, ms: float) -> None:
    """Let it be that late, and have the host call where it was asked to."""
    guest.host.tsc = 5_000_000 + int(ms * guest.host.tsc_khz)
    for vcpu, deadline in list(guest.host.armed.items()):
        if deadline is not None and deadline <= guest.domain.clock.now():
            guest.domain.expire(vcpu)


def fired(guest: Guest, vcpu: int = 0) -> bool:
    """Whether the vCPU's timer port became pending since this was last asked."""
    (pending,) = guest.get("<Q", SPARE + 0x800)
    guest.put("<Q", SPARE + 0x800, pending & ~(8 << vcpu))
    return bool(pending & 8 << vcpu)


def period(guest: Guest, ms: int, vcpu: int = 0, caller: int = 0) -> None:
    guest.put("<Q", ARG, ms * MS)
    assert guest.call(VCPU_OP, SET_PERIODIC, vcpu, ARG, vcpu=caller) == 0


def single(guest: Guest, ms: int) -> None:
    guest.put("<QI", ARG, ms * MS, 0)
    assert guest.call(VCPU_OP, SET_SINGLESHOT, 0, ARG) == 0


def test_a_periodic_timer_ticks_once_a_period(guest: Guest) -> None:
    period(guest, 10)
    ticks = 0
    for now in range(1, 100):
        at(guest, now)
        ticks += fired(guest)
    assert ticks == 9
    assert not fired(guest, 1)


def test_the_first_tick_is_a_period_after_the_last_there_ever_was(guest: Guest) -> None:
    """For a vCPU that never ticked, after its time began: at once when that is longer ago."""
    at(guest, 35)
    period(guest, 10)
    assert fired(guest)
    assert guest.host.armed[0] == 45 * MS
    guest.call(VCPU_OP, STOP_PERIODIC, 0, 0)
    at(guest, 40)
    period(guest, 10)
    assert not fired(guest)
    assert guest.host.armed[0] == 45 * MS


def test_stop_ends_it(guest: Guest) -> None:
    period(guest, 10)
    assert guest.call(VCPU_OP, STOP_PERIODIC, 0, 0) == 0
    assert guest.host.armed[0] is None
    guest.domain.expire(0)
    at(guest, 50)
    guest.domain.expire(0)
    assert not fired(guest)


def test_another_vcpu_may_set_it(guest: Guest) -> None:
    period(guest, 10, vcpu=1, caller=0)
    at(guest, 10)
    assert (fired(guest, 0), fired(guest, 1)) == (False, True)


@pytest.mark.parametrize("way", ["blocked", "down"])
def test_it_ticks_only_while_its_vcpu_runs(guest: Guest, way: str) -> None:
    """Ticks that were missed are made up for by one: the period starts anew with it."""
    period(guest, 10)
    if way == "blocked":
        guest.domain.note_runstate(0, BLOCKED)
    else:
        guest.call(VCPU_OP, 2, 0, 0, vcpu=1)
    assert guest.host.armed[0] is None
    at(guest, 45)
    guest.domain.expire(0)
    assert not fired(guest)
    if way == "blocked":
        guest.domain.note_runstate(0, RUNNING)
    else:
        guest.call(VCPU_OP, 1, 0, 0, vcpu=1)
    assert fired(guest)
    assert guest.host.armed[0] == 55 * MS


def test_a_vcpu_without_one_has_its_host_left_alone(guest: Guest) -> None:
    guest.domain.note_runstate(0, BLOCKED)
    guest.domain.note_runstate(0, RUNNING)
    assert guest.host.armed == {}


def test_a_singleshot_timer_fires_though_its_vcpu_sleeps(guest: Guest) -> None:
    single(guest, 5)
    guest.domain.note_runstate(0, BLOCKED)
    at(guest, 5)
    assert fired(guest)


def test_the_host_is_asked_for_the_earlier_of_both(guest: Guest) -> None:
    period(guest, 10)
    single(guest, 25)
    assert guest.host.armed[0] == 10 * MS
    at(guest, 20)
    assert fired(guest)
    assert guest.host.armed[0] == 25 * MS
    at(guest, 25)
    assert fired(guest)
    assert guest.host.armed[0] == 30 * MS
    guest.call(VCPU_OP, STOP_SINGLESHOT, 0, 0)
    assert guest.host.armed[0] == 30 * MS


def set_timer(guest: Guest, timeout: int) -> int:
    """set_timer_op(s64 timeout), which 32-bit callers give in two halves."""
    if guest.bits == 64:
        return guest.call(SET_TIMER_OP, timeout & (1 << 64) - 1)
    return guest.call(SET_TIMER_OP, timeout & 0xFFFFFFFF, timeout >> 32 & 0xFFFFFFFF)


@pytest.mark.parametrize("bits", [64, 32])
class TestSetTimerOp:
    """The singleshot timer, by its older call."""

    def test_it_fires_at_its_time_and_once(self, guest: Guest, bits: int) -> None:
        guest.bits = bits
        assert set_timer(guest, 5000 * MS) == 0
        assert not fired(guest)
        at(guest, 5000)
        assert fired(guest)
        at(guest, 6000)
        assert not fired(guest)

    def test_zero_stops_it(self, guest: Guest, bits: int) -> None:
        guest.bits = bits
        set_timer(guest, 10 * MS)
        assert set_timer(guest, 0) == 0
        at(guest, 11)
        assert not fired(guest)

    def test_a_past_time_fires_at_once(self, guest: Guest, bits: int) -> None:
        guest.bits = bits
        at(guest, 10)
        assert set_timer(guest, 9 * MS) == 0
        assert fired(guest)

    @pytest.mark.parametrize(("timeout", "wanted"), [(-1, 110), ((1 << 50) + 10 * MS, 110), ((1 << 63) - 1, 110)])
    def test_mistakes_of_linux_become_100_ms(self, guest: Guest, bits: int, timeout: int, wanted: int) -> None:
        guest.bits = bits
        at(guest, 10)
        assert set_timer(guest, timeout) == 0
        assert guest.host.armed[0] == wanted * MS

    def test_nearly_as_far_is_no_mistake(self, guest: Guest, bits: int) -> None:
        guest.bits = bits
        assert set_timer(guest, (1 << 50) - 1) == 0
        assert guest.host.armed[0] == (1 << 50) - 1


def test_alarms_ring_once_in_the_thread_of_their_vcpu(guest: Guest) -> None:
    rung: list[str] = []
    timers = guest.domain.timers
    timers.set_alarm(1, "a", 5 * MS, lambda: rung.append("a"))
    timers.set_alarm(1, "b", 3 * MS, lambda: rung.append("b"))
    single(guest, 4)
    assert (guest.host.armed[0], guest.host.armed[1]) == (4 * MS, 3 * MS)
    at(guest, 4)
    assert rung == ["b"]
    at(guest, 5)
    assert rung == ["b", "a"]
    at(guest, 9)
    assert rung == ["b", "a"]
    assert guest.host.armed[1] is None


def test_an_alarm_is_moved_and_cancelled(guest: Guest) -> None:
    rung: list[str] = []
    timers = guest.domain.timers
    timers.set_alarm(0, "a", 5 * MS, lambda: rung.append("first"))
    timers.set_alarm(0, "a", 7 * MS, lambda: rung.append("second"))
    at(guest, 6)
    assert not rung
    timers.cancel_alarm(0, "a")
    at(guest, 8)
    assert not rung
    timers.set_alarm(0, "a", 7 * MS, lambda: rung.append("late"))
    assert rung == ["late"]


def test_an_alarm_may_cancel_another_that_is_due_too(guest: Guest) -> None:
    rung: list[str] = []
    timers = guest.domain.timers

    def first() -> None:
        rung.append("first")
        timers.cancel_alarm(0, "second")

    timers.set_alarm(0, "first", 5 * MS, first)
    timers.set_alarm(0, "second", 5 * MS, lambda: rung.append("second"))
    at(guest, 6)
    assert rung == ["first"]
