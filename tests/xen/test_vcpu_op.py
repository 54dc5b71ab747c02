"""vcpu_op (facts/xen-abi.md, 8; xen/common/domain.c)."""

from __future__ import annotations

import pytest

from pvh.abi.hypercall import EVENT_CHANNEL_OP, VCPU_OP
from xen.guest import ARG, BUFFER, RAM, SPARE, Guest

ENOENT, ENXIO, EFAULT, EBUSY, EINVAL, ENOSYS = 2, 6, 14, 16, 22, 38
IS_UP, GET_RUNSTATE, REGISTER_RUNSTATE, SET_SINGLESHOT, STOP_SINGLESHOT, REGISTER_INFO = 3, 4, 5, 8, 9, 10


def op(guest: Guest, command: int, layout: str, *values: int, vcpu: int = 0, caller: int = 0) -> int:
    guest.put(layout, ARG, *values)
    return guest.call(VCPU_OP, command, vcpu, ARG, vcpu=caller)


def register(guest: Guest, gfn: int, offset: int, vcpu: int = 0) -> int:
    return op(guest, REGISTER_INFO, "<QII", gfn, offset, 0, vcpu=vcpu)


@pytest.mark.parametrize("command", [0, IS_UP, REGISTER_INFO, 99])
@pytest.mark.parametrize("vcpu", [2, 128, 0xFFFFFFFF])
def test_the_vcpu_is_looked_up_before_the_command(guest: Guest, command: int, vcpu: int) -> None:
    assert guest.call(VCPU_OP, command, vcpu, ARG) == -ENOENT


@pytest.mark.parametrize("command", [0, 1, 2, 6, 11, 12, 13, 14, 15, 99])
def test_what_is_not_offered_gives_enosys(guest: Guest, command: int) -> None:
    assert guest.call(VCPU_OP, command, 0, ARG) == -ENOSYS


def test_the_boot_processor_is_up_and_others_never_were(guest: Guest) -> None:
    assert guest.call(VCPU_OP, IS_UP, 0, 0) == 1
    assert guest.call(VCPU_OP, IS_UP, 1, 0) == 0


@pytest.mark.parametrize(
    ("gfn", "offset", "wanted"),
    [
        (SPARE >> 12, 4096, -EINVAL),
        (SPARE >> 12, 0xFFFFFFFF, -EINVAL),
        (1 << 52, 0, -EINVAL),
        (2**64 - 1, 0, -EINVAL),
        (SPARE >> 12, 4096 - 63, -ENXIO),
        (SPARE >> 12, 4095, -ENXIO),
        (SPARE >> 12, 2, -ENXIO),
        (RAM >> 12, 0, -EINVAL),
        (SPARE >> 12, 4096 - 64, 0),
        (SPARE >> 12, 0, 0),
    ],
)
def test_where_a_vcpu_info_may_be(guest: Guest, gfn: int, offset: int, wanted: int) -> None:
    assert register(guest, gfn, offset) == wanted


def test_it_is_aligned_to_a_long_of_the_domains_width(guest: Guest) -> None:
    guest.domain.shared.latch_width(wide=guest.bits == 64)
    assert register(guest, SPARE >> 12, 4) == (-ENXIO if guest.bits == 64 else 0)


def test_it_is_registered_once(guest: Guest) -> None:
    assert register(guest, SPARE >> 12, 0) == 0
    assert register(guest, SPARE >> 12, 64) == -EBUSY
    assert register(guest, SPARE >> 12, 2) == -EBUSY
    assert register(guest, SPARE >> 12, 4096) == -EINVAL
    assert register(guest, SPARE >> 12, 64, vcpu=1) == 0


def test_registering_copies_the_old_one_and_raises_a_spurious_upcall(guest: Guest) -> None:
    """Every selector set, upcall pending, so that nothing of the old place is missed."""
    guest.domain.shared.latch_width(wide=guest.bits == 64)
    guest.domain.shared.map_at(SPARE >> 12)
    guest.domain.upcall_vectors[0] = 0xF3
    guest.put("<B", SPARE + 1, 1)  # evtchn_upcall_mask: a byte only the guest uses
    assert register(guest, (SPARE >> 12) + 1, 128) == 0
    at, word = SPARE + 0x1000 + 128, guest.bits // 8
    assert guest.get("<BB", at) == (1, 1)
    assert guest.ram.read(at + word, word) == b"\xff" * word
    assert guest.get("<IIQQI", at + 32) == guest.get("<IIQQI", SPARE + 32)
    assert guest.get("<I", at + 32)[0] % 2 == 0
    assert guest.host.vectors == [(0, 0xF3)]


def test_events_then_show_in_the_new_place(guest: Guest) -> None:
    guest.domain.shared.map_at(SPARE >> 12)
    register(guest, (SPARE >> 12) + 1, 0)
    guest.put("<B", SPARE + 0x1000, 0)
    guest.domain.events.mark(0)
    assert guest.get("<B", SPARE + 0x1000) == (1,)
    assert guest.get("<B", SPARE) == (0,)


def test_vcpus_from_32_on_have_no_slot_in_shared_info() -> None:
    guest = Guest(vcpus=34)
    guest.domain.shared.map_at(SPARE >> 12)
    guest.domain.events.mark(33)
    assert register(guest, (SPARE >> 12) + 1, 0, vcpu=33) == 0
    assert guest.get("<B", SPARE + 0x1000) == (1,)
    assert guest.ram.read(SPARE + 33 * 64, 1) == b"\0"
    assert guest.get("<IIQQI", SPARE + 0x1020) == guest.get("<IIQQI", SPARE + 0x20)


def test_runstate_is_laid_out_for_the_callers_width(guest: Guest) -> None:
    """48 bytes with the entry time at 8; for 32-bit callers 44, at 4. This vCPU has run since it was made."""
    guest.host.tsc += 2_000_000_000  # a second
    layout = "<i4xQ4Q" if guest.bits == 64 else "<iQ4Q"
    guest.ram.write(ARG, b"\xaa" * 49)
    assert guest.call(VCPU_OP, GET_RUNSTATE, 0, ARG) == 0
    assert guest.get(layout, ARG) == (0, 0, 1_000_000_000, 0, 0, 0)
    assert guest.ram.read(ARG + (48 if guest.bits == 64 else 44), 1) == b"\xaa"


def test_registering_a_runstate_area_writes_it_at_once(guest: Guest) -> None:
    guest.host.tsc += 2_000_000
    assert op(guest, REGISTER_RUNSTATE, "<Q", BUFFER) == 0
    assert guest.get("<Q", BUFFER + (16 if guest.bits == 64 else 12)) == (1_000_000,)
    assert op(guest, REGISTER_RUNSTATE, "<Q", RAM) == -EFAULT


class TestSingleshot:
    """The timer Linux uses: an absolute time of the domain's clock, VIRQ_TIMER when it comes."""

    @pytest.fixture(autouse=True)
    def _bound(self, guest: Guest) -> None:
        guest.domain.upcall_vectors[0] = 0xF3
        assert guest.op(EVENT_CHANNEL_OP, 1, "<III", 0, 0, 0) == 0

    def fired(self, guest: Guest) -> bool:
        return bool(guest.host.vectors)

    def test_it_fires_when_its_time_has_come_and_not_before(self, guest: Guest) -> None:
        assert op(guest, SET_SINGLESHOT, "<QI", 1_000_000, 1) == 0
        assert guest.host.armed == {0: 1_000_000}
        guest.host.tsc += 1_000_000  # half of it
        guest.domain.expire(0)
        assert not self.fired(guest)
        assert guest.host.armed == {0: 1_000_000}
        guest.host.tsc += 1_000_000
        guest.domain.expire(0)
        assert self.fired(guest)
        assert guest.host.armed == {0: None}
        guest.domain.expire(0)
        assert len(guest.host.vectors) == 1

    @pytest.mark.parametrize("flags", [0, 1])
    def test_a_past_one_fires_at_once_and_gives_0(self, guest: Guest, flags: int) -> None:
        """Also with VCPU_SSHOTTMR_future, for which older Xen gave -ETIME."""
        guest.host.tsc += 2_000_000
        assert op(guest, SET_SINGLESHOT, "<QI", 999_999, flags) == 0
        assert self.fired(guest)

    @pytest.mark.parametrize("timeout", [1 << 63, 2**64 - 1])
    def test_times_are_signed_so_absurd_ones_are_past(self, guest: Guest, timeout: int) -> None:
        assert op(guest, SET_SINGLESHOT, "<QI", timeout, 0) == 0
        assert self.fired(guest)

    def test_a_new_one_replaces_it_and_stop_cancels_it(self, guest: Guest) -> None:
        op(guest, SET_SINGLESHOT, "<QI", 1_000_000, 0)
        op(guest, SET_SINGLESHOT, "<QI", 2_000_000, 0)
        assert guest.host.armed == {0: 2_000_000}
        assert guest.call(VCPU_OP, STOP_SINGLESHOT, 0, 0) == 0
        assert guest.host.armed == {0: None}
        guest.host.tsc += 10_000_000
        guest.domain.expire(0)
        assert not self.fired(guest)

    def test_a_vcpu_sets_its_own_only(self, guest: Guest) -> None:
        assert op(guest, SET_SINGLESHOT, "<QI", 1, 0, vcpu=1) == -EINVAL
        assert guest.call(VCPU_OP, STOP_SINGLESHOT, 1, 0) == -EINVAL
        assert op(guest, SET_SINGLESHOT, "<QI", 9_000_000, 0, vcpu=1, caller=1) == 0
        assert guest.host.armed == {1: 9_000_000}

    def test_stop_periodic_timer_gives_0_so_that_linux_takes_this_one(self, guest: Guest) -> None:
        assert guest.call(VCPU_OP, 7, 0, 0) == 0
