"""hvm_op and the HVM params (facts/xen-abi.md, 9; xen/arch/x86/hvm/hvm.c)."""

from __future__ import annotations

import pytest

from pvh.abi.hypercall import HVM_OP
from xen.guest import ARG, CONSOLE, RAM, SPARE, Guest

EPERM, ENOENT, ESRCH, EEXIST, ENODEV, EINVAL, ENOSYS = 1, 2, 3, 17, 19, 22, 38
TYPE_2 = 2 << 56

# The table of facts 9: index -> (get, set); what is not here is the toolstack's.
GUEST = {
    0: (0, 0),
    1: (0, -EPERM),
    2: (0, 0),
    15: (0, 0),
    17: (0, -EPERM),
    18: (0, 0),
    19: (0, -ENODEV),
    34: (0, 0),
    35: (0, -EEXIST),
    36: (0, 0),
    37: (0, 0),
}
DEPRECATED = {4, 13, *range(20, 27), 30}


def rights(index: int) -> tuple[int, int]:
    if index >= 39 or index in DEPRECATED:
        return -EINVAL, -EINVAL
    return GUEST.get(index, (-EPERM, -EPERM))


@pytest.mark.parametrize("index", [*range(42), 0x7FFFFFFF, 0xFFFFFFFF])
def test_who_may_read_and_write_each_param(guest: Guest, index: int) -> None:
    may_get, may_set = rights(index)
    assert guest.get_param(index) == may_get
    assert guest.set_param(index, 4) == may_set
    if may_set == 0:
        assert guest.get_param(index) == 0
        assert guest.get("<Q", ARG + 8) == (4,)


def test_a_refused_get_leaves_the_structure_alone(guest: Guest) -> None:
    guest.get_param(12)
    assert guest.get("<Q", ARG + 8) == (0xDEAD,)


def test_values_are_64_bits_wide_for_any_caller(guest: Guest) -> None:
    assert guest.set_param(34, 0x8000_0000_0000_0001) == 0
    assert guest.get_param(34) == 0
    assert guest.get("<HHIQ", ARG) == (0x7FF0, 0, 34, 0x8000_0000_0000_0001)


def test_xenstore_and_console_are_in_their_special_pages(guest: Guest) -> None:
    """Frames and ports are those that tests/oracle/logs show of libxl's guests."""
    assert (guest.get_param(17), *guest.get("<Q", ARG + 8)) == (0, CONSOLE >> 12)
    assert (guest.get_param(18), *guest.get("<Q", ARG + 8)) == (0, 2)
    assert (guest.get_param(1), *guest.get("<Q", ARG + 8)) == (0, 0xFEFFC)
    assert (guest.get_param(2), *guest.get("<Q", ARG + 8)) == (0, 1)


@pytest.mark.parametrize("value", [1, 2, 3, 5, 9, 1 << 32])
def test_x87_fip_width_is_0_4_or_8(guest: Guest, value: int) -> None:
    assert guest.set_param(36, value) == -EINVAL
    assert [guest.set_param(36, width) for width in (0, 4, 8)] == [0, 0, 0]


@pytest.mark.parametrize(("domid", "wanted"), [(0, -EINVAL), (2, -ESRCH), (0x7FF1, -ESRCH)])
def test_another_domain_is_none_of_ours(guest: Guest, domid: int, wanted: int) -> None:
    """Domain 0 is a PV guest: -EINVAL, as the oracle says."""
    assert guest.get_param(0, domid) == wanted
    assert guest.set_param(0, 0, domid) == wanted
    assert guest.get_param(39, domid) == -EINVAL  # the index is looked at first
    assert guest.get_param(0, domid=1) == 0  # a domain may name itself


def test_callback_irq_latches_the_width_of_shared_info(guest: Guest) -> None:
    """As the hypercall-page MSR does (facts, 6)."""
    guest.domain.shared.latch_width(wide=guest.bits == 32)
    assert guest.set_param(0, 1) == 0
    assert guest.domain.shared.layout.word * 8 == guest.bits


def test_a_type_2_vector_stays_armed_whatever_is_written_later(guest: Guest) -> None:
    assert guest.set_param(0, TYPE_2 | 0xF3) == 0
    assert guest.domain.params.callback_vector == 0xF3
    for value in (0, 1, 1 << 56 | 3, 3 << 56 | 0x99):
        assert guest.set_param(0, value) == 0
        assert guest.get_param(0) == 0
        assert guest.get("<Q", ARG + 8) == (value,)
    assert guest.domain.params.callback_vector == 0xF3


def test_other_callback_types_deliver_nothing(guest: Guest) -> None:
    """A PVH domain has neither IOAPIC nor PIC."""
    guest.set_param(0, 0x09)
    guest.domain.events.mark(0)
    assert (guest.host.vectors, guest.host.injected) == ([], [])


def test_a_type_2_vector_is_delivered_past_the_local_apic(guest: Guest) -> None:
    guest.set_param(0, TYPE_2 | 0xF3)
    guest.domain.events.mark(1)
    assert (guest.host.vectors, guest.host.injected) == ([], [(1, 0xF3)])


def test_a_type_2_vector_is_a_level_so_a_waiting_upcall_is_delivered_when_it_is_set(guest: Guest) -> None:
    """register_vcpu_info leaves evtchn_upcall_pending set; Linux sets the callback after it (facts, 10.1)."""
    guest.domain.events.mark(1)
    guest.set_param(0, TYPE_2 | 0xF3)
    assert guest.host.injected == [(1, 0xF3)]


def test_an_upcall_vector_is_an_edge_of_the_local_apic_and_asserted_at_once(guest: Guest) -> None:
    assert guest.op(HVM_OP, 23, "<IB3x", 1, 0xF3) == 0
    assert guest.host.vectors == [(1, 0xF3)]
    guest.domain.events.mark(1)
    assert guest.host.vectors == [(1, 0xF3)] * 2
    guest.domain.events.mark(1)  # upcall_pending is set: no news
    assert guest.host.vectors == [(1, 0xF3)] * 2


def test_with_both_set_both_fire(guest: Guest) -> None:
    guest.set_param(0, TYPE_2 | 0xF4)
    guest.op(HVM_OP, 23, "<IB3x", 0, 0xF3)
    guest.domain.events.mark(0)
    assert guest.host.vectors[-1] == (0, 0xF3)
    assert guest.host.injected == [(0, 0xF4)]


@pytest.mark.parametrize(
    ("vcpu", "vector", "wanted"),
    [(0, 0x0F, -EINVAL), (9, 0x0F, -EINVAL), (2, 0x10, -ENOENT), (0xFFFFFFFF, 0x20, -ENOENT), (1, 0x10, 0)],
)
def test_upcall_vectors_below_16_and_unknown_vcpus_are_refused(
    guest: Guest, vcpu: int, vector: int, wanted: int
) -> None:
    assert guest.op(HVM_OP, 23, "<IB3x", vcpu, vector) == wanted
    assert len(guest.host.vectors) == (wanted == 0)


def test_get_time_is_the_domains_clock(guest: Guest) -> None:
    guest.host.tsc += 2_000_000_000
    assert guest.call(HVM_OP, 10, ARG) == 0
    assert guest.get("<Q", ARG) == (guest.domain.clock.now(),)


def test_flush_tlbs_takes_no_argument(guest: Guest) -> None:
    assert guest.call(HVM_OP, 5, 0) == 0
    assert guest.call(HVM_OP, 5, ARG) == -EINVAL


def test_pagetable_dying_fails_so_that_linux_leaves_its_hook_out(guest: Guest) -> None:
    assert guest.op(HVM_OP, 9, "<HHHHQ", 0x7FF0, 0, 0, 0, 0) == -EINVAL


@pytest.mark.parametrize("domid", [0x7FF0, 1])
@pytest.mark.parametrize(
    ("gfn", "kind"), [(0, 0), (SPARE >> 12, 0), (0xFEFFF, 0), (RAM >> 12, 2), (2**52, 2), (2**64 - 1, 2)]
)
def test_memory_is_ram_and_what_is_no_memory_belongs_to_a_device(guest: Guest, gfn: int, kind: int, domid: int) -> None:
    """HVMMEM_ram_rw 0, HVMMEM_mmio_dm 2: Linux asks before it dumps a page."""
    assert guest.op(HVM_OP, 15, "<HHHHQ", domid, 0xAA, 0, 0, gfn) == 0
    assert guest.get("<HH", ARG) == (domid, kind)


def test_a_page_that_was_given_up_is_no_memory(guest: Guest) -> None:
    guest.domain.physmap.remove(SPARE >> 12, free=True)
    guest.op(HVM_OP, 15, "<HHHHQ", 0x7FF0, 0xAA, 0, 0, SPARE >> 12)
    assert guest.get("<HH", ARG)[1] == 2


@pytest.mark.parametrize(("domid", "wanted"), [(0, -1), (2, -3)])
def test_memory_of_other_domains_is_not_told_of(guest: Guest, domid: int, wanted: int) -> None:
    assert guest.op(HVM_OP, 15, "<HHHHQ", domid, 0, 0, 0, 0) == wanted
    assert guest.op(HVM_OP, 9, "<HHHHQ", domid, 0, 0, 0, 0) == (-EINVAL if domid == 0 else wanted)


@pytest.mark.parametrize(
    ("event", "extra", "wanted"), [(0, 0, 0), (0xFFF, 28, 0), (0x1000, 0, -EINVAL), (0, 29, -EINVAL)]
)
def test_trace_records_are_taken(guest: Guest, event: int, extra: int, wanted: int) -> None:
    assert guest.op(HVM_OP, 11, "<HH", event, extra) == wanted


def test_nobody_monitors_the_guest_nor_gives_it_other_maps(guest: Guest) -> None:
    assert (guest.call(HVM_OP, 24, 0), guest.call(HVM_OP, 24, ARG), guest.call(HVM_OP, 25, ARG)) == (0, -EINVAL, -95)


@pytest.mark.parametrize("command", [2, 3, 4, 6, 7, 8, 12, 13, 14, 16, 22, 26])
def test_the_rest_of_hvm_op_is_not_there(guest: Guest, command: int) -> None:
    assert guest.call(HVM_OP, command, ARG) == -ENOSYS
