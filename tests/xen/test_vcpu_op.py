"""vcpu_op (facts/xen-abi.md, 8; xen/common/domain.c)."""

from __future__ import annotations

import pytest

from pvh.abi.hypercall import EVENT_CHANNEL_OP, VCPU_OP
from pvh.engines.exits import Hypercall
from pvh.record import replace
from pvh.xen.dispatch import hypercall
from xen.guest import ARG, BUFFER, FLAT_32, LONG_64, RAM, READ_ONLY, SPARE, Guest

ENOENT, ENXIO, EFAULT, EBUSY, EINVAL, ENOSYS = 2, 6, 14, 16, 22, 38
IS_UP, SET_PERIODIC, STOP_PERIODIC, SET_SINGLESHOT, STOP_SINGLESHOT, REGISTER_INFO = 3, 6, 7, 8, 9, 10
SEND_NMI, REGISTER_TIME, REGISTER_TIME_PHYS = 11, 13, 15
NO_AREA = 2**64 - 1


def op(guest: Guest, command: int, layout: str, *values: int, vcpu: int = 0, caller: int = 0) -> int:
    guest.put(layout, ARG, *values)
    return guest.call(VCPU_OP, command, vcpu, ARG, vcpu=caller)


def register(guest: Guest, gfn: int, offset: int, vcpu: int = 0) -> int:
    return op(guest, REGISTER_INFO, "<QII", gfn, offset, 0, vcpu=vcpu)


@pytest.mark.parametrize("command", [0, IS_UP, REGISTER_INFO, 99])
@pytest.mark.parametrize("vcpu", [2, 128, 0xFFFFFFFF])
def test_the_vcpu_is_looked_up_before_the_command(guest: Guest, command: int, vcpu: int) -> None:
    assert guest.call(VCPU_OP, command, vcpu, ARG) == -ENOENT


@pytest.mark.parametrize("command", [16, 99, 0xFFFFFFFF])
def test_a_command_that_is_none_gives_enosys(guest: Guest, command: int) -> None:
    assert guest.call(VCPU_OP, command, 0, ARG) == -ENOSYS


@pytest.mark.parametrize("command", [0, 4, 5, 6, 8, 10, 13, 14, 15])
@pytest.mark.parametrize("address", [RAM, RAM - 1], ids=["unmapped", "second page unmapped"])
def test_an_argument_that_cannot_be_reached_gives_efault(guest: Guest, command: int, address: int) -> None:
    assert guest.call(VCPU_OP, command, 0, address) == -EFAULT


@pytest.mark.parametrize("command", [1, 2, 3, 7, 9, 11, 12])
def test_commands_without_an_argument_take_no_notice_of_it(guest: Guest, command: int) -> None:
    """But for send_nmi, which wants none, and get_physid, which only a hardware domain may ask."""
    guest.call(VCPU_OP, 0, 1, ARG)
    wanted = {3: 1, 11: -EINVAL, 12: -EINVAL}.get(command, 0)
    assert guest.call(VCPU_OP, command, 0, RAM) == wanted


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


def test_a_refused_place_raises_nothing(guest: Guest) -> None:
    guest.domain.upcall_vectors[0] = 0xF3
    assert register(guest, RAM >> 12, 0) == -EINVAL
    assert guest.host.vectors == []


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


def test_an_nmi_takes_no_argument_and_any_vcpu(guest: Guest) -> None:
    assert guest.call(VCPU_OP, SEND_NMI, 1, ARG) == -EINVAL
    assert guest.host.nmis == []
    assert guest.call(VCPU_OP, SEND_NMI, 1, 0) == 0
    assert guest.call(VCPU_OP, SEND_NMI, 0, 0) == 0
    assert guest.host.nmis == [1, 0]


class TestTimeAreas:
    """vcpu_time_info in a place of the guest's choosing: 13 by linear, 15 by guest-physical address."""

    def written(self, guest: Guest, at: int) -> bool:
        raw = guest.ram.read(at, 32)
        if raw == b"\xaa" * 32:
            return False
        assert raw == guest.domain.shared.time_info()
        version, _, origin, system, mul, shift, flags, _ = guest.get("<IIQQIbBH", at)
        assert (version % 2, origin, system, mul, shift, flags & 1) == (0, 5_000_000, 0, 0x80000000, 0, 1)
        return True

    @pytest.fixture(autouse=True)
    def _clean(self, guest: Guest) -> None:
        guest.ram.write(BUFFER, b"\xaa" * 0x2000)

    def test_by_linear_address(self, guest: Guest) -> None:
        assert op(guest, REGISTER_TIME, "<Q", BUFFER + 3, vcpu=1) == 0
        assert self.written(guest, BUFFER + 3)

    def test_across_pages(self, guest: Guest) -> None:
        assert op(guest, REGISTER_TIME, "<Q", SPARE - 16) == 0
        assert self.written(guest, SPARE - 16)

    @pytest.mark.parametrize("linear", [RAM, RAM - 16, 0xFFFFFFFF, 2**64 - 1, 1 << 47, READ_ONLY, READ_ONLY - 16])
    def test_a_linear_address_that_leads_nowhere_gives_0(self, linear: int) -> None:
        """Xen looks where it leads only when it writes, and tells nobody that it cannot."""
        guest = Guest()
        before = guest.ram.read(0, RAM - 32), guest.ram.read(READ_ONLY, 0x1000)
        assert op(guest, REGISTER_TIME, "<Q", linear) == 0
        guest.put("<Q", ARG, 0)
        assert (guest.ram.read(0, RAM - 32), guest.ram.read(READ_ONLY, 0x1000)) == before

    def test_a_32_bit_caller_passes_a_32_bit_pointer(self) -> None:
        guest = Guest(bits=32)
        guest.ram.write(BUFFER, b"\xaa" * 32)
        assert op(guest, REGISTER_TIME, "<II", BUFFER, 0xFFFFFFFF) == 0
        assert self.written(guest, BUFFER)

    def test_so_does_one_in_compatibility_mode(self) -> None:
        """Whose addresses go through four-level tables, and are 32 bits all the same."""
        guest = Guest()
        guest.ram.write(BUFFER, b"\xaa" * 32)
        guest.put("<II", ARG, BUFFER, 0xFFFFFFFF)
        state = replace(LONG_64, cs=FLAT_32.cs)
        call = Hypercall(VCPU_OP, (REGISTER_TIME, 0, ARG, 0, 0), 32, 0)
        assert hypercall(guest.domain, 0, call, lambda: state) == 0
        assert self.written(guest, BUFFER)

    def test_by_guest_physical_address(self, guest: Guest) -> None:
        assert op(guest, REGISTER_TIME_PHYS, "<Q", BUFFER, vcpu=1) == 0
        assert self.written(guest, BUFFER)
        assert op(guest, REGISTER_TIME_PHYS, "<Q", BUFFER + 64, vcpu=1) == 0
        assert self.written(guest, BUFFER + 64)
        assert op(guest, REGISTER_TIME_PHYS, "<Q", NO_AREA, vcpu=1) == 0

    def test_a_refused_place_is_not_written(self, guest: Guest) -> None:
        assert op(guest, REGISTER_TIME_PHYS, "<Q", BUFFER + 1) == -ENXIO
        assert not self.written(guest, BUFFER + 1)


# 14 has 48 bytes (44 for 32-bit callers), 15 has 32. ends: the place is where it ends.
@pytest.mark.parametrize(("command", "size"), [(14, 48), (15, 32)])
@pytest.mark.parametrize(
    ("place", "ends", "wanted"),
    [
        (SPARE + 4, False, -ENXIO),
        (SPARE + 1, False, -ENXIO),
        (SPARE + 0x1000, True, 0),
        (SPARE + 0x1008, True, -ENXIO),
        (SPARE + 0xFF8, False, -ENXIO),
        (2**64 - 8, False, -ENXIO),
        (RAM, False, -EINVAL),
        (1 << 60, False, -EINVAL),
        (RAM - 0x1000, False, 0),
        (NO_AREA, False, 0),
    ],
)
def test_where_a_physical_area_may_be(command: int, size: int, *, place: int, ends: bool, wanted: int) -> None:
    """map_guest_area, xen/common/domain.c. All memory a PVH guest has can be written: -EACCES does not occur."""
    guest = Guest()
    assert op(guest, command, "<Q", place - size if ends else place) == wanted


@pytest.mark.parametrize("command", [14, 15])
def test_a_physical_area_is_aligned_to_a_long_of_the_domains_width(command: int) -> None:
    guest = Guest(bits=32)
    assert op(guest, command, "<Q", SPARE + 4) == -ENXIO
    guest.domain.shared.latch_width(wide=False)
    assert op(guest, command, "<Q", SPARE + 4) == 0
    assert op(guest, command, "<Q", SPARE + 2) == -ENXIO
    if command == 14:
        assert op(guest, command, "<Q", SPARE + 0x1000 - 44) == 0
        assert op(guest, command, "<Q", SPARE + 0x1000 - 40) == -ENXIO


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

    def test_the_argument_is_16_bytes_in_64_bit_code_and_12_elsewhere(self, guest: Guest) -> None:
        assert guest.call(VCPU_OP, SET_SINGLESHOT, 0, RAM - 12) == (-EFAULT if guest.bits == 64 else 0)
        assert guest.call(VCPU_OP, SET_SINGLESHOT, 0, RAM - 16) == 0

    def test_whose_it_is_comes_first_but_for_32_bit_callers(self, guest: Guest) -> None:
        """xen/common/compat/domain.c copies the argument before do_vcpu_op sees it."""
        assert guest.call(VCPU_OP, SET_SINGLESHOT, 1, RAM) == (-EINVAL if guest.bits == 64 else -EFAULT)

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


@pytest.mark.parametrize("vcpu", [0, 1])
@pytest.mark.parametrize(
    ("period", "wanted"),
    [
        (0, -EINVAL),
        (999_999, -EINVAL),
        (1_000_000, 0),
        ((1 << 62) - 1, 0),
        (1 << 62, -EINVAL),
        (1 << 63, -EINVAL),
        (2**64 - 1, -EINVAL),
    ],
)
def test_what_period_a_periodic_timer_may_have(guest: Guest, vcpu: int, period: int, wanted: int) -> None:
    assert op(guest, SET_PERIODIC, "<Q", period, vcpu=vcpu) == wanted
    assert guest.host.armed == ({0: period} if vcpu == 0 and not wanted else {1: None} if not wanted else {})
    assert guest.call(VCPU_OP, STOP_PERIODIC, vcpu, 0) == 0
    assert guest.host.armed == {vcpu: None} or wanted
