"""memory_op (facts/xen-abi.md, 10.3; xen/common/memory.c, xen/arch/x86/mm.c)."""

from __future__ import annotations

import struct

import pytest

from pvh.abi.hypercall import DOMID_SELF, MEMORY_OP
from xen.guest import ARG, BUFFER, MEMORY_MAP, RAM, READ_ONLY, SPARE, SPECIAL, Guest

EPERM, ENOENT, ESRCH, EACCES, EFAULT, EINVAL, ENOSYS = 1, 2, 3, 13, 14, 22, 38
INCREASE, DECREASE, POPULATE = 0, 1, 6
OWNED = (RAM >> 12) + 8  # pages: RAM and the special ones
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


@pytest.mark.parametrize(("space", "wanted"), [(4, -ENOSYS), (5, -EACCES), (6, -EINVAL), (99, -EINVAL)])
def test_other_spaces_are_refused(guest: Guest, space: int, wanted: int) -> None:
    """gmfn_foreign is for add_to_physmap_batch, dev_mmio for the hardware domain."""
    assert add_to_physmap(guest, space, 0, SPARE >> 12) == wanted


@pytest.mark.parametrize(("domid", "wanted"), [(0, -EPERM), (2, -ESRCH), (0x7FF1, -ESRCH), (0xFFFF, -ESRCH)])
def test_other_domains_are_none_of_ours(guest: Guest, domid: int, wanted: int) -> None:
    assert add_to_physmap(guest, 0, 0, SPARE >> 12, domid) == wanted
    for command in (CURRENT, MAXIMUM, MAXIMUM_GPFN):
        assert guest.op(MEMORY_OP, command, "<H", domid) == wanted
    assert remove(guest, SPARE >> 12, domid) == wanted


@pytest.mark.parametrize("domid", [DOMID_SELF, 1])
def test_reservations_are_in_pages_and_the_last_frame_is_that_of_the_console(guest: Guest, domid: int) -> None:
    """As Xen 4.17 says of a domU of 32 MiB: special pages count, and 1 MiB more may be allocated (oracle log)."""
    assert guest.op(MEMORY_OP, CURRENT, "<H", domid) == OWNED
    assert guest.op(MEMORY_OP, MAXIMUM, "<H", domid) == (RAM >> 12) + 256
    assert guest.op(MEMORY_OP, MAXIMUM_GPFN, "<H", domid) == 0xFEFFF


def test_the_machine_is_the_guests_memory(guest: Guest) -> None:
    assert guest.call(MEMORY_OP, 2, 0) == 0xFF000


@pytest.mark.parametrize("command", [2, CURRENT, MAXIMUM, MAXIMUM_GPFN, 15])
def test_a_continuation_of_what_is_done_in_one_go_is_none(guest: Guest, command: int) -> None:
    """do_memory_op: start_extent must be 0."""
    assert guest.op(MEMORY_OP, command | 1 << 6, "<H6xQ", DOMID_SELF, SPARE >> 12) == -EINVAL


def test_the_machines_memory_map_is_for_the_hardware_domain(guest: Guest) -> None:
    assert guest.call(MEMORY_OP, 10, ARG) == -EPERM


@pytest.mark.parametrize("command", [5, 8, 11, 12, 16, 20, 21, 23, 26, 27, 63])
def test_the_rest_is_not_there(guest: Guest, command: int) -> None:
    assert guest.call(MEMORY_OP, command, ARG) == -ENOSYS


def reserve(guest: Guest, command: int, gfns: list[int] | None, count: int = -1, order: int = 0, **more: int) -> int:
    """Struct xen_memory_reservation: 32 bytes, 20 for 32-bit callers; the extents are at BUFFER."""
    word, layout = ("Q", "<QQIIH6x") if guest.bits == 64 else ("I", "<IIIIH2x")
    assert struct.calcsize(layout) == (32 if guest.bits == 64 else 20)
    guest.put(f"<{len(gfns or [])}{word}", BUFFER, *(gfns or []))
    count = len(gfns or []) if count < 0 else count
    fields = (more.get("buffer", BUFFER), count, order, more.get("flags", 0), more.get("domid", DOMID_SELF))
    return guest.op(MEMORY_OP, command | more.get("start", 0) << 6, layout, *fields)


def remove(guest: Guest, gfn: int, domid: int = DOMID_SELF) -> int:
    return guest.op(MEMORY_OP, 15, "<H6xQ" if guest.bits == 64 else "<H2xI", domid, gfn)


def owned(guest: Guest) -> int:
    return guest.op(MEMORY_OP, CURRENT, "<H", DOMID_SELF)


GFN = SPARE >> 12


def test_a_page_that_was_given_up_is_gone_and_zeroed(guest: Guest) -> None:
    guest.ram.write(SPARE, b"\xaa" * 0x2000)
    assert reserve(guest, DECREASE, [GFN, GFN + 1]) == 2
    assert owned(guest) == OWNED - 2
    assert guest.ram.read(SPARE, 0x2000) == bytes(0x2000)
    assert reserve(guest, DECREASE, [GFN]) == 0, "it is gone already"
    assert remove(guest, GFN) == -ENOENT


def test_it_comes_back_as_zeroes(guest: Guest) -> None:
    reserve(guest, DECREASE, [GFN])
    guest.ram.write(SPARE, b"\xaa")
    assert reserve(guest, POPULATE, [GFN]) == 1
    assert owned(guest) == OWNED
    assert guest.ram.read(SPARE, 0x1000) == bytes(0x1000)
    assert reserve(guest, DECREASE, [GFN]) == 1


def test_extents_are_powers_of_two(guest: Guest) -> None:
    assert reserve(guest, DECREASE, [0x20, 0x40], order=4) == 2
    assert owned(guest) == OWNED - 32
    assert (reserve(guest, DECREASE, [0x2F]), reserve(guest, DECREASE, [0x30])) == (0, 1)


def test_the_first_extent_that_fails_ends_it(guest: Guest) -> None:
    assert reserve(guest, DECREASE, [GFN, RAM >> 12, GFN + 1]) == 1
    assert reserve(guest, POPULATE, [GFN, RAM >> 12, GFN + 1]) == 1
    assert owned(guest) == OWNED


def test_a_continuation_goes_on_where_it_says(guest: Guest) -> None:
    assert reserve(guest, DECREASE, [GFN, GFN + 1, GFN + 2], start=2) == 3
    assert owned(guest) == OWNED - 1


@pytest.mark.parametrize("command", [INCREASE, DECREASE, POPULATE])
@pytest.mark.parametrize(
    "more",
    [
        {"count": 0},
        {"start": 1},
        {"count": (1 << 26) + 0},
        {"order": 10},
        {"domid": 0},
        {"domid": 9},
        {"flags": 1 << 16},
    ],
)
def test_what_cannot_be_done_returns_where_it_began(guest: Guest, command: int, more: dict[str, int]) -> None:
    """There is no errno: the number of extents done says it all."""
    assert reserve(guest, command, [GFN], **more) == more.get("start", 0)
    assert owned(guest) == OWNED


@pytest.mark.parametrize("command", [INCREASE, DECREASE, POPULATE])
def test_a_reservation_that_cannot_be_read_is_none(guest: Guest, command: int) -> None:
    assert guest.call(MEMORY_OP, command | 7 << 6, RAM - 8) == 7
    assert reserve(guest, command, [GFN], buffer=RAM, count=1) == (command == INCREASE)


def test_a_domain_has_no_more_than_its_maximum(guest: Guest) -> None:
    room = (RAM >> 12) + 256 - OWNED
    assert reserve(guest, INCREASE, None, count=1 << 20) == room
    assert reserve(guest, POPULATE, [GFN]) == 0
    assert reserve(guest, DECREASE, [GFN]) == 1
    assert reserve(guest, INCREASE, None, count=2) == 1


def test_populating_where_there_is_a_page_puts_it_out_of_reach(guest: Guest) -> None:
    guest.ram.write(SPARE, b"\xaa")
    assert reserve(guest, POPULATE, [GFN]) == 1
    assert owned(guest) == OWNED + 1
    assert guest.ram.read(SPARE, 1) == b"\0"


def test_a_page_taken_out_of_the_map_stays_the_domains(guest: Guest) -> None:
    assert remove(guest, GFN) == 0
    assert (remove(guest, GFN), owned(guest)) == (-ENOENT, OWNED)


def test_a_page_of_xens_frees_what_it_covers_and_leaves_a_hole(guest: Guest) -> None:
    assert add_to_physmap(guest, 0, 0, GFN) == 0
    assert owned(guest) == OWNED - 1
    assert remove(guest, GFN) == 0
    assert guest.ram.read(SPARE, 0x1000) == bytes(0x1000)
    assert remove(guest, GFN) == -ENOENT
    assert add_to_physmap(guest, 0, 0, GFN) == 0, "shared_info lived on, with Xen"
    assert guest.get("<I", SPARE + 32) == (2,)


def test_shared_info_comes_to_a_frame_without_memory_if_the_engine_can(guest: Guest) -> None:
    gfn = 0x8000
    guest.host.backs = lambda gpa: guest.ram.add(gpa) is not None
    assert add_to_physmap(guest, 0, 0, gfn) == 0
    assert guest.get("<I", (gfn << 12) + 32) == (2,)
    assert guest.op(MEMORY_OP, MAXIMUM_GPFN, "<H", DOMID_SELF) == 0xFEFFF
    assert owned(guest) == OWNED
    assert reserve(guest, POPULATE, [gfn]) == 0, "but it is no place for RAM"


def test_grant_frames_are_made_as_they_are_asked_for(guest: Guest) -> None:
    """Linux asks for the highest first (facts, 10.1, step 8)."""
    assert add_to_physmap(guest, 1, 2, GFN + 2) == 0
    assert len(guest.domain.grants.frames) == 3
    assert add_to_physmap(guest, 1, 0, GFN) == 0
    assert guest.get("<HHI", SPARE) == (1, 0, 0xFEFFF), "entry 0 is the console's"


@pytest.mark.parametrize("index", [64, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF])
def test_grant_frames_beyond_the_limit_and_status_frames_are_none(guest: Guest, index: int) -> None:
    assert add_to_physmap(guest, 1, index, GFN) == -EINVAL
    assert len(guest.domain.grants.frames) == 1


def test_two_pages_of_xens_at_one_frame_are_the_later(guest: Guest) -> None:
    add_to_physmap(guest, 0, 0, GFN)
    assert add_to_physmap(guest, 1, 0, GFN) == 0
    assert guest.get("<HHI", SPARE) == (1, 0, 0xFEFFF)
    assert add_to_physmap(guest, 0, 0, GFN + 1) == 0
    assert guest.get("<I", SPARE + 0x1000 + 32) == (2,)


def test_a_frame_moves(guest: Guest) -> None:
    guest.ram.write(SPARE, b"page")
    assert add_to_physmap(guest, 2, GFN, GFN + 1) == 0
    assert guest.ram.read(SPARE + 0x1000, 4) == b"page"
    assert owned(guest) == OWNED - 1
    assert add_to_physmap(guest, 2, GFN, GFN + 2) == -EINVAL, "nothing is there now"
    assert add_to_physmap(guest, 2, GFN + 1, GFN) == 0
    assert guest.ram.read(SPARE, 4) == b"page"
    assert add_to_physmap(guest, 2, GFN, GFN) == 0
    assert add_to_physmap(guest, 2, GFN, RAM >> 12) == -EINVAL


def test_a_range_moves_page_by_page(guest: Guest) -> None:
    guest.ram.write(SPARE, b"one".ljust(0x1000, b"\0") + b"two")
    layout = "<HHIQQ" if guest.bits == 64 else "<HHIII"
    assert guest.op(MEMORY_OP, ADD_TO_PHYSMAP, layout, DOMID_SELF, 2, 3, GFN, GFN + 4) == 0
    assert (guest.ram.read(SPARE + 0x4000, 3), guest.ram.read(SPARE + 0x5000, 3)) == (b"one", b"two")
    assert guest.op(MEMORY_OP, ADD_TO_PHYSMAP | 3 << 6, layout, DOMID_SELF, 2, 3, GFN, GFN + 4) == -84
    assert guest.op(MEMORY_OP, ADD_TO_PHYSMAP, layout, DOMID_SELF, 2, 3, GFN, GFN + 4) == -EINVAL
    if guest.bits == 64:
        assert guest.op(MEMORY_OP, ADD_TO_PHYSMAP | 1 << 22, layout, DOMID_SELF, 2, 3, GFN, GFN) == -33


def set_memory_map(guest: Guest, count: int, domid: int = DOMID_SELF, buffer: int = BUFFER) -> int:
    """Struct xen_foreign_memory_map: 24 bytes, 12 for 32-bit callers."""
    return guest.op(MEMORY_OP, 13, "<H6xI4xQ" if guest.bits == 64 else "<H2xII", domid, count, buffer)


def test_a_guest_may_set_its_own_memory_map(guest: Guest) -> None:
    guest.put("<QQIQQI", BUFFER, 0, 0x1000, 1, 0x2000, 0x3000, 2)
    assert set_memory_map(guest, 2) == 0
    guest.ram.write(BUFFER, bytes(60))
    assert memory_map(guest, 8) == 0
    assert guest.get("<I", ARG) == (2,)
    assert guest.get("<QQIQQIQ", BUFFER) == (0, 0x1000, 1, 0x2000, 0x3000, 2, 0)


@pytest.mark.parametrize(
    ("count", "domid", "buffer", "wanted"),
    [(1025, DOMID_SELF, 0, -EINVAL), (1, 0, 0, -EPERM), (1, 9, 0, -ESRCH), (1, DOMID_SELF, RAM - 19, -EFAULT)],
)
def test_a_memory_map_that_is_refused_changes_nothing(
    guest: Guest, count: int, domid: int, buffer: int, wanted: int
) -> None:
    assert set_memory_map(guest, count, domid, buffer) == wanted
    memory_map(guest, 8)
    assert guest.get("<I", ARG) == (len(MEMORY_MAP),)


def test_frames_that_are_no_ram_get_memory_so_many_times(guest: Guest) -> None:
    """What a guest that moves shared_info about can have the host hold is bounded."""
    guest.host.backs = lambda gpa: guest.ram.add(gpa) is not None
    assert {add_to_physmap(guest, 0, 0, 0x8000 + index) for index in range(256)} == {0}
    assert add_to_physmap(guest, 0, 0, 0x9000) == -EINVAL
    assert add_to_physmap(guest, 0, 0, 0x8000) == 0, "one that has memory already"
