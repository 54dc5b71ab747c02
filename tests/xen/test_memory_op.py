"""memory_op (facts/xen-abi.md, 10.3; xen/common/memory.c, xen/arch/x86/mm.c)."""

from __future__ import annotations

import struct

import pytest

from pvh.abi.hypercall import DOMID_SELF, MEMORY_OP
from xen.guest import ARG, BUFFER, MEMORY_MAP, RAM, READ_ONLY, SPARE, SPECIAL, Guest

ESRCH, EFAULT, EINVAL, ENOSYS = 3, 14, 22, 38
CURRENT, MAXIMUM, ADD_TO_PHYSMAP, MEMORY_MAP_OP, MAXIMUM_GPFN = 3, 4, 7, 9, 14


def memory_map(guest: Guest, room: int, buffer: int = BUFFER) -> int:
    return guest.op(MEMORY_OP, MEMORY_MAP_OP, "<I4xQ" if guest.bits == 64 else "<II", room, buffer)


def add_to_physmap(guest: Guest, space: int, index: int, gfn: int, domid: int = DOMID_SELF) -> int:
    """Struct xen_add_to_physmap: 24 bytes, 16 for 32-bit callers."""
    layout = "<HHIQQ" if guest.bits == 64 else "<HHIII"
    assert struct.calcsize(layout) == (24 if guest.bits == 64 else 16)
    return guest.op(MEMORY_OP, ADD_TO_PHYSMAP, layout, domid, 0, space, index, gfn)


@pytest.mark.parametrize("room", [0, 1, 2, 3, 4, 128, 0xFFFFFFFF])
def test_memory_map_is_clipped_to_the_callers_room(guest: Guest, room: int) -> None:
    """Entries are 20 bytes, packed; nr_entries comes back as their number."""
    guest.ram.write(BUFFER, b"\xaa" * 80)
    assert memory_map(guest, room) == 0
    given = MEMORY_MAP[:room]
    assert guest.get("<I", ARG) == (len(given),)
    wanted = b"".join(struct.pack("<QQI", e.addr, e.size, e.type) for e in given)
    assert guest.ram.read(BUFFER, 80) == wanted.ljust(80, b"\xaa")


def test_memory_map_leaves_the_pointer_alone(guest: Guest) -> None:
    assert memory_map(guest, 8) == 0
    assert guest.get("<Q" if guest.bits == 64 else "<I", ARG + guest.bits // 8) == (BUFFER,)


def test_memory_map_into_no_memory_gives_efault(guest: Guest) -> None:
    assert memory_map(guest, 8, RAM - 20) == -EFAULT
    assert memory_map(guest, 1, RAM - 20) == 0


def test_memory_map_into_a_read_only_page_gives_efault() -> None:
    assert memory_map(Guest(), 1, READ_ONLY) == -EFAULT


def test_shared_info_appears_where_the_guest_puts_it(guest: Guest) -> None:
    """Its time fields are valid at once: Linux reads the TSC's frequency from them next (facts, 10.1)."""
    guest.ram.write(SPARE, b"\xaa" * 0x1000)
    assert add_to_physmap(guest, 0, 0, SPARE >> 12) == 0
    version, _, stamp, system, mul = guest.get("<IIQQI", SPARE + 32)
    assert (version % 2, stamp, system, mul) == (0, guest.domain.clock.origin, 0, guest.domain.clock.mul)
    assert guest.ram.read(SPARE + 0xD00, 0x300) == bytes(0x300)


def test_shared_info_moves_with_its_contents(guest: Guest) -> None:
    assert add_to_physmap(guest, 0, 0, SPARE >> 12) == 0
    guest.ram.write(SPARE + 0x800, b"\x42")
    assert add_to_physmap(guest, 0, 0, (SPARE >> 12) + 1) == 0
    assert guest.ram.read(SPARE + 0x1800, 1) == b"\x42"
    assert guest.ram.read(SPARE, 0x1000) == bytes(0x1000)
    assert add_to_physmap(guest, 0, 0, (SPARE >> 12) + 1) == 0
    assert guest.ram.read(SPARE + 0x1800, 1) == b"\x42"


def test_shared_info_may_lie_in_a_special_page(guest: Guest) -> None:
    assert add_to_physmap(guest, 0, 0, SPECIAL >> 12) == 0
    assert guest.get("<I", SPECIAL + 32) == (2,)


def test_shared_info_has_one_page_only(guest: Guest) -> None:
    assert add_to_physmap(guest, 0, 1, SPARE >> 12) == -EINVAL


@pytest.mark.parametrize("gfn", [RAM >> 12, 0xFEE00, 0xFFFFFFFF])
def test_shared_info_outside_memory_gives_einval(guest: Guest, gfn: int) -> None:
    """A deviation: Xen would make the frame (docs/design.md). The page stays where it was."""
    assert add_to_physmap(guest, 0, 0, SPARE >> 12) == 0
    assert add_to_physmap(guest, 0, 0, gfn) == -EINVAL
    assert guest.get("<I", SPARE + 32) == (2,)


@pytest.mark.parametrize("gfn", [1 << 40, 1 << 52, 2**64 - 1])
def test_absurd_frames_of_64_bit_callers_give_einval(gfn: int) -> None:
    assert add_to_physmap(Guest(), 0, 0, gfn) == -EINVAL


@pytest.mark.parametrize("space", [1, 2, 3, 4, 5, 99])
def test_other_spaces_are_not_offered(guest: Guest, space: int) -> None:
    assert add_to_physmap(guest, space, 0, SPARE >> 12) == -ENOSYS


@pytest.mark.parametrize("domid", [0, 2, 0x7FF1, 0xFFFF])
def test_other_domains_are_none(guest: Guest, domid: int) -> None:
    assert add_to_physmap(guest, 0, 0, SPARE >> 12, domid) == -ESRCH
    assert guest.op(MEMORY_OP, CURRENT, "<H", domid) == -ESRCH


@pytest.mark.parametrize("domid", [DOMID_SELF, 1])
def test_reservations_are_in_pages_and_the_last_frame_is_that_of_the_console(guest: Guest, domid: int) -> None:
    assert guest.op(MEMORY_OP, CURRENT, "<H", domid) == RAM >> 12
    assert guest.op(MEMORY_OP, MAXIMUM, "<H", domid) == RAM >> 12
    assert guest.op(MEMORY_OP, MAXIMUM_GPFN, "<H", domid) == 0xFEFFF


def test_the_upper_bits_of_the_command_are_a_continuation(guest: Guest) -> None:
    assert guest.op(MEMORY_OP, CURRENT | 5 << 6, "<H", DOMID_SELF) == RAM >> 12
