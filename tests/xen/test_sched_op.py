"""sched_op (facts/xen-abi.md, 10.3; xen/common/sched/core.c)."""

from __future__ import annotations

import pytest

from pvh.abi.hypercall import SCHED_OP
from xen.guest import ARG, Guest


def test_yield_is_nothing(guest: Guest) -> None:
    assert guest.call(SCHED_OP, 0, 0) == 0
    assert guest.domain.running


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


@pytest.mark.parametrize("command", [4, 5, 6, 7])
def test_what_is_not_offered_gives_enosys(guest: Guest, command: int) -> None:
    assert guest.call(SCHED_OP, command, ARG) == -38
