"""Hypercall convention (facts/xen-abi.md, 7; xen/arch/x86/hvm/hypercall.c)."""

from __future__ import annotations

import pytest

from pvh.abi.hypercall import EVENT_CHANNEL_OP, HVM_OP, MEMORY_OP, SCHED_OP, VCPU_OP, XEN_VERSION
from xen.guest import ARG, RAM, READ_ONLY, SPARE, Guest

EPERM, EFAULT, ENOSYS = 1, 14, 38


@pytest.mark.parametrize("number", [*range(7), 8, 9, 10, 14, 16, 19, 22, 23, 25, 28, 30, 37, 43, 127, 1 << 31])
def test_numbers_that_hvm_guests_do_not_have_give_enosys(guest: Guest, number: int) -> None:
    assert guest.call(number) == -ENOSYS


@pytest.mark.parametrize("number", [XEN_VERSION, 127])
@pytest.mark.parametrize("cpl", [1, 2, 3])
def test_outside_ring_0_every_call_gives_eperm(guest: Guest, number: int, cpl: int) -> None:
    """Also of numbers that do not exist: the privilege is looked at first."""
    assert guest.raw(number, cpl=cpl) == -EPERM & (2**64 - 1 if guest.bits == 64 else 2**32 - 1)


@pytest.mark.parametrize(("bits", "wanted"), [(64, 2**64 - ENOSYS), (32, 2**32 - ENOSYS), (16, 2**32 - ENOSYS)])
def test_the_result_is_rax_in_64_bit_code_and_eax_elsewhere(bits: int, wanted: int) -> None:
    guest = Guest()
    assert guest.raw(127, bits=bits) == wanted
    assert guest.raw(XEN_VERSION, 0, bits=bits) == 4 << 16 | 20


def test_64_bit_callers_pass_all_of_rax() -> None:
    assert Guest().call(XEN_VERSION | 1 << 32) == -ENOSYS


READERS = [
    (XEN_VERSION, 6),
    (MEMORY_OP, 7),
    (MEMORY_OP, 9),
    (MEMORY_OP, 3),
    (SCHED_OP, 2),
    (EVENT_CHANNEL_OP, 1),
    (EVENT_CHANNEL_OP, 4),
    (HVM_OP, 0),
    (HVM_OP, 1),
    (HVM_OP, 23),
]


@pytest.mark.parametrize(("number", "command"), READERS)
@pytest.mark.parametrize("address", [RAM, RAM - 1], ids=["unmapped", "second page unmapped"])
def test_an_argument_that_cannot_be_read_gives_efault(guest: Guest, number: int, command: int, address: int) -> None:
    assert guest.call(number, command, address) == -EFAULT
    assert guest.domain.running


@pytest.mark.parametrize("command", [4, 5, 8, 10])
@pytest.mark.parametrize("address", [RAM, RAM - 1], ids=["unmapped", "second page unmapped"])
def test_so_it_is_for_vcpu_op(guest: Guest, command: int, address: int) -> None:
    assert guest.call(VCPU_OP, command, 0, address) == -EFAULT


def test_an_answer_that_cannot_be_written_gives_efault() -> None:
    """Pointers go through the caller's page tables, and a read-only page is one that a copy out fails on."""
    guest = Guest()
    guest.put("<II", READ_ONLY, 0, 0)
    assert guest.call(XEN_VERSION, 6, READ_ONLY) == -EFAULT
    assert guest.get("<II", READ_ONLY) == (0, 0)
    assert guest.call(XEN_VERSION, 3, READ_ONLY) == -EFAULT


def test_a_structure_may_lie_across_two_pages(guest: Guest) -> None:
    assert guest.call(XEN_VERSION, 8, SPARE + 0xFF8) == 0
    assert guest.call(XEN_VERSION, 6, SPARE + 0xFFC) == 0
    assert guest.get("<I", SPARE + 0x1000) == (0xD0305,)


def test_32_bit_commands_ignore_the_upper_half_of_the_register() -> None:
    """cmd is an int in Xen's prototypes."""
    assert Guest().call(XEN_VERSION, 0xABCD_0000_0000) == 4 << 16 | 20


@pytest.mark.parametrize("number", [SCHED_OP, VCPU_OP, XEN_VERSION, MEMORY_OP, EVENT_CHANNEL_OP, HVM_OP])
def test_commands_that_do_not_exist_give_enosys(guest: Guest, number: int) -> None:
    assert guest.call(number, 0x3D, 0, ARG) == -ENOSYS


def test_nothing_a_guest_passes_raises(guest: Guest) -> None:
    top = 2**guest.bits - 1
    for number in range(48):
        for command in range(32):
            for value in (0, 1, ARG, RAM - 4, top, top - 7, 1 << 31):
                guest.raw(number, command, value, value)
                guest.raw(number, value, command, ARG)
