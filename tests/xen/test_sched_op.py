"""sched_op (facts/xen-abi.md, 10.3; xen/common/sched/core.c)."""

from __future__ import annotations

import pytest

from pvh.abi.hypercall import DOMID_SELF, SCHED_OP
from xen.guest import ARG, Guest


def test_yield_lets_others_run(guest: Guest) -> None:
    assert guest.call(SCHED_OP, 0, 0, vcpu=1) == 0
    assert guest.domain.running
    assert guest.host.yielded == [1]


@pytest.mark.parametrize("reason", [0, 1, 2, 3, 4, 5, 6, 255])
def test_shutdown_ends_the_domain_for_any_reason(guest: Guest, reason: int) -> None:
    """Xen looks at no reason; the toolstack does."""
    assert guest.op(SCHED_OP, 2, "<I", reason) == 0
    assert guest.host.ended == [guest.domain.shutdown] == [reason]
    assert not guest.domain.running


def test_a_reason_is_one_byte(guest: Guest) -> None:
    """do_sched_op casts it to u8."""
    guest.op(SCHED_OP, 2, "<I", 0x103)
    assert guest.host.ended == [3]


def test_the_first_shutdown_counts(guest: Guest) -> None:
    """domain_shutdown of a domain that is shut down changes nothing."""
    guest.op(SCHED_OP, 2, "<I", 3)
    assert guest.op(SCHED_OP, 2, "<I", 0) == 0
    assert guest.domain.shutdown == 3


@pytest.mark.parametrize("command", [7, 8, 0xFFFFFFFF])
def test_what_there_is_not_gives_enosys(guest: Guest, command: int) -> None:
    assert guest.call(SCHED_OP, command, ARG) == -38


@pytest.mark.parametrize(("domid", "wanted"), [(DOMID_SELF, -1), (1, -1), (0, -1), (2, -3)])
def test_remote_shutdown_is_for_those_who_control_others(guest: Guest, domid: int, wanted: int) -> None:
    assert guest.op(SCHED_OP, 4, "<H2xI", domid, 0) == wanted
    assert guest.domain.running


def test_a_shutdown_code_is_latched(guest: Guest) -> None:
    """The first counts, and more than what the shutdown itself says."""
    assert guest.op(SCHED_OP, 5, "<I", 0x103) == guest.op(SCHED_OP, 5, "<I", 1) == 0
    assert guest.domain.running
    guest.op(SCHED_OP, 2, "<I", 0)
    assert guest.host.ended == [guest.domain.shutdown] == [3]


class TestWatchdog:
    """SCHEDOP_watchdog: {u32 id, u32 timeout in s}, two timers."""

    @staticmethod
    def start(guest: Guest, seconds: int, number: int = 0) -> int:
        return guest.op(SCHED_OP, 6, "<II", number, seconds)

    @staticmethod
    def at(guest: Guest, seconds: float) -> None:
        guest.host.tsc = 5_000_000 + int(seconds * 2e9)
        guest.domain.expire(0)

    def test_ids_count_from_1_and_there_are_two(self, guest: Guest) -> None:
        assert [self.start(guest, 5) for _ in range(3)] == [1, 2, -28]

    @pytest.mark.parametrize("number", [1, 2, 3, 0xFFFFFFFF])
    def test_one_that_was_not_started_is_none(self, guest: Guest, number: int) -> None:
        assert self.start(guest, 5, number) == -22

    def test_it_ends_the_domain_unless_set_anew(self, guest: Guest) -> None:
        self.start(guest, 5)
        self.at(guest, 4)
        assert self.start(guest, 5, 1) == 0
        self.at(guest, 8.9)
        assert guest.domain.running
        self.at(guest, 9)
        assert guest.host.ended == [4]

    def test_zero_seconds_stop_it(self, guest: Guest) -> None:
        self.start(guest, 5)
        assert self.start(guest, 0, 1) == 0
        self.at(guest, 99)
        assert guest.domain.running
        assert self.start(guest, 5) == 1
