"""SCHEDOP_block and SCHEDOP_poll: who sleeps, and what wakes it (facts/xen-abi.md, 10.3; xen/common/sched/core.c)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pvh.abi.hypercall import EVENT_CHANNEL_OP, SCHED_OP
from pvh.engines.exits import Hypercall
from pvh.xen.dispatch import hypercall
from xen.guest import ARG, BUFFER, FLAT_32, LONG_64, RAM, SPARE, Guest

BLOCK, POLL = 1, 3
RUNNING, BLOCKED = 0, 2
EFAULT, EINVAL = 14, 22
IF = 1 << 9
MS = 1_000_000


@pytest.fixture
def sleeper(guest: Guest) -> Guest:
    """shared_info is at SPARE, every port masked; vCPU 0 has an upcall vector."""
    guest.domain.shared.latch_width(wide=guest.bits == 64)
    assert guest.domain.shared.map_at(SPARE >> 12)
    guest.ram.write(guest_mask(guest), b"\xff" * 128)
    guest.domain.upcall_vectors[0] = 0xF3
    return guest


def guest_mask(guest: Guest) -> int:
    return SPARE + (0xA00 if guest.bits == 64 else 0x880)


def ipi(guest: Guest, vcpu: int = 0, *, masked: bool = True) -> int:
    assert guest.op(EVENT_CHANNEL_OP, 7, "<II", vcpu, 0) == 0
    port = guest.get("<II", ARG)[1]
    if not masked:
        guest.put("<B", guest_mask(guest) + port // 8, 0xFF & ~(1 << port % 8))
    return port


def send(guest: Guest, port: int) -> None:
    """From vCPU 1, as vCPU 0 sleeps."""
    assert guest.op(EVENT_CHANNEL_OP, 4, "<I", port, vcpu=1) == 0


def block(guest: Guest, *, interrupts: bool) -> int:
    state = LONG_64 if guest.bits == 64 else FLAT_32
    state = replace(state, rflags=state.rflags | IF if interrupts else state.rflags)
    return hypercall(guest.domain, 0, Hypercall(SCHED_OP, (BLOCK, 0, 0, 0, 0), guest.bits, 0), lambda: state)


def poll(guest: Guest, ports: list[int], timeout: int = 0, count: int = -1, pointer: int = BUFFER) -> int:
    """Struct sched_poll: 24 bytes, 16 for 32-bit callers."""
    guest.put(f"<{len(ports)}I", BUFFER, *ports)
    layout = "<QI4xQ" if guest.bits == 64 else "<IIQ"
    return guest.op(SCHED_OP, POLL, layout, pointer, len(ports) if count < 0 else count, timeout)


def sleeps(guest: Guest) -> bool:
    host = guest.host
    state = guest.domain.processors[0].runstate.state
    assert (state == BLOCKED) == (len(host.blocked) > len(host.woken))
    return state == BLOCKED


def test_block_sleeps_until_an_event_comes(sleeper: Guest) -> None:
    port = ipi(sleeper, masked=False)
    assert block(sleeper, interrupts=True) == 0
    assert sleeps(sleeper)
    send(sleeper, port)
    assert not sleeps(sleeper)
    assert sleeper.host.vectors == [(0, 0xF3)]


def test_a_masked_event_wakes_nobody(sleeper: Guest) -> None:
    port = ipi(sleeper)
    block(sleeper, interrupts=True)
    send(sleeper, port)
    assert sleeps(sleeper)


def test_an_event_of_another_vcpu_wakes_nobody(sleeper: Guest) -> None:
    port = ipi(sleeper, 1, masked=False)
    block(sleeper, interrupts=True)
    send(sleeper, port)
    assert sleeps(sleeper)


@pytest.mark.parametrize("interrupts", [True, False])
def test_block_does_not_sleep_over_an_event_that_can_be_taken(sleeper: Guest, *, interrupts: bool) -> None:
    """local_events_need_delivery: with interrupts off none can."""
    send(sleeper, ipi(sleeper, masked=False))
    block(sleeper, interrupts=interrupts)
    assert sleeps(sleeper) != interrupts


def test_block_enables_events(sleeper: Guest) -> None:
    """vcpu_block_enable_events clears evtchn_upcall_mask."""
    sleeper.put("<B", SPARE + 1, 1)
    block(sleeper, interrupts=True)
    assert sleeper.get("<B", SPARE + 1) == (0,)


def test_poll_returns_at_once_when_a_port_is_pending(sleeper: Guest) -> None:
    quiet, loud = ipi(sleeper), ipi(sleeper)
    send(sleeper, loud)
    assert poll(sleeper, [quiet, loud]) == 0
    assert not sleeps(sleeper)


def test_poll_of_one_port_wakes_by_it_though_it_is_masked(sleeper: Guest) -> None:
    """Linux's spinlocks keep theirs masked."""
    port, other = ipi(sleeper), ipi(sleeper)
    assert poll(sleeper, [port]) == 0
    send(sleeper, other)
    assert sleeps(sleeper)
    send(sleeper, port)
    assert not sleeps(sleeper)


def test_poll_of_several_ports_or_none_wakes_by_any(sleeper: Guest) -> None:
    """Xen keeps one number: v->poll_evtchn is -1 then."""
    first, second, other = (ipi(sleeper, vcpu) for vcpu in (0, 0, 1))
    assert poll(sleeper, [first, second]) == 0
    assert sleeps(sleeper)
    send(sleeper, other)
    assert not sleeps(sleeper)
    sleeper.host.blocked.clear()
    sleeper.host.woken.clear()
    assert poll(sleeper, []) == 0
    assert sleeps(sleeper)
    send(sleeper, second)
    assert not sleeps(sleeper)


def test_poll_also_wakes_by_an_upcall(sleeper: Guest) -> None:
    port, event = ipi(sleeper), ipi(sleeper, masked=False)
    poll(sleeper, [port])
    send(sleeper, event)
    assert not sleeps(sleeper)


@pytest.mark.parametrize(("timeout", "woken_at"), [(7 * MS, 7), (1, 0), ((1 << 64) - 5, 0)])
def test_poll_ends_at_its_timeout(sleeper: Guest, timeout: int, woken_at: int) -> None:
    """Absolute, in ns; a time that is past, or negative, is now."""
    sleeper.host.tsc += 1
    poll(sleeper, [ipi(sleeper)], timeout)
    if woken_at:
        assert sleeper.host.armed[0] == timeout
        assert sleeps(sleeper)
        sleeper.host.tsc += woken_at * sleeper.host.tsc_khz
        sleeper.domain.expire(0)
    else:
        sleeper.host.tsc += 10
        sleeper.domain.expire(0)
    assert not sleeps(sleeper)
    assert sleeper.host.armed[0] is None


def test_an_event_before_the_timeout_cancels_it(sleeper: Guest) -> None:
    port = ipi(sleeper)
    poll(sleeper, [port], 7 * MS)
    send(sleeper, port)
    assert sleeper.host.armed[0] is None


@pytest.mark.parametrize("count", [129, 0xFFFFFFFF])
def test_more_than_128_ports_are_too_many(sleeper: Guest, count: int) -> None:
    assert poll(sleeper, [], count=count) == -EINVAL
    assert poll(sleeper, [ipi(sleeper)] * 128) == 0


@pytest.mark.parametrize("port", [64, 0xFFFFFFFF])
def test_a_port_that_is_none_ends_the_poll(sleeper: Guest, port: int) -> None:
    assert poll(sleeper, [ipi(sleeper), port]) == -EINVAL
    assert not sleeps(sleeper)


def test_ports_that_cannot_be_read_give_efault(sleeper: Guest) -> None:
    assert poll(sleeper, [], count=2, pointer=RAM - 4) == -EFAULT
    assert not sleeps(sleeper)


def test_a_sleeper_that_makes_a_hypercall_was_woken_by_its_engine(sleeper: Guest) -> None:
    """An engine with local APICs of its own ends the sleep by an interrupt we know nothing of."""
    port = ipi(sleeper)
    poll(sleeper, [port], 7 * MS)
    assert sleeper.call(SCHED_OP, 0, 0) == 0
    assert sleeper.domain.processors[0].runstate.state == RUNNING
    assert sleeper.host.armed[0] is None
    send(sleeper, port)
    assert sleeper.host.woken == [0], "by the hypercall, so that the machine knows, too"
