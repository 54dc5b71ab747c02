"""grant_table_op, version 1 (facts/xen-abi.md, 10.3 and 11; xen/common/grant_table.c)."""

from __future__ import annotations

import struct

import pytest

from pvh.abi.hypercall import DOMID_SELF, GRANT_TABLE_OP
from xen.guest import ARG, BUFFER, CONSOLE, RAM, SPARE, Guest

MAP, UNMAP, SETUP, COPY, QUERY, SET_VERSION, GET_VERSION, SWAP = 0, 1, 2, 5, 6, 8, 10, 11
EPERM, ESRCH, EFAULT, EINVAL, ENOSYS = 1, 3, 14, 22, 38
GENERAL, DOMAIN, GNTREF, HANDLE, ADDRESS, PERMISSION, PAGE, COPY_ARG, NO_SPACE = -1, -2, -3, -4, -5, -8, -9, -10, -13
US = 1  # our domain id
GFN = SPARE >> 12
TABLE = 0xB  # where the tests map frame 0
REF = 8  # the first reference that is not reserved
PERMIT, READONLY, READING, WRITING = 1, 4, 8, 0x10


@pytest.fixture
def table(guest: Guest) -> Guest:
    frame = guest.domain.grants.frame(0)
    assert frame
    assert guest.domain.physmap.map(frame, TABLE)
    return guest


def entry(guest: Guest, ref: int, flags: int, domid: int, gfn: int) -> None:
    guest.put("<HHI", (TABLE << 12) + ref * 8, flags, domid, gfn)


def op(guest: Guest, command: int, count: int = 1) -> int:
    return guest.call(GRANT_TABLE_OP, command, ARG, count)


def query(guest: Guest, domid: int = DOMID_SELF) -> tuple[int, ...]:
    """Return nr_frames, max_nr_frames, status."""
    guest.put("<H2xIIh", ARG, domid, 7, 7, 7)
    assert op(guest, QUERY) == 0
    return guest.get("<IIh", ARG + 4)


def test_a_table_begins_with_one_frame_and_may_have_64(guest: Guest) -> None:
    assert query(guest) == query(guest, US) == (1, 64, 0)
    guest.domain.grants.frame(5)
    assert query(guest) == (6, 64, 0)


@pytest.mark.parametrize(("domid", "status"), [(0, PERMISSION), (2, DOMAIN), (0x7FF1, DOMAIN)])
def test_tables_of_other_domains_are_not_told_of(guest: Guest, domid: int, status: int) -> None:
    assert query(guest, domid) == (7, 7, status)
    assert setup(guest, 1, domid)[0] == status


@pytest.mark.parametrize("command", [QUERY, SETUP])
@pytest.mark.parametrize("count", [0, 2])
def test_some_operations_are_one(guest: Guest, command: int, count: int) -> None:
    assert op(guest, command, count) == -EINVAL


@pytest.mark.parametrize("command", [MAP, QUERY, SET_VERSION])
def test_a_negative_count_is_refused(guest: Guest, command: int) -> None:
    assert op(guest, command, 0x80000000) == -EINVAL


@pytest.mark.parametrize("command", [3, 4, 7, 9, 12, 0x1000, 0xFFFFFFFF])
def test_the_rest_is_not_for_hvm_guests(guest: Guest, command: int) -> None:
    assert op(guest, command) == -ENOSYS


@pytest.mark.parametrize(("version", "wanted"), [(1, 0), (2, -ENOSYS), (0, -EINVAL), (3, -EINVAL)])
def test_version_1_is_all_there_is(guest: Guest, version: int, wanted: int) -> None:
    """As under a toolstack's max_grant_version=1; the version that is in force comes back in any case."""
    guest.put("<I", ARG, version)
    assert op(guest, SET_VERSION) == wanted
    assert guest.get("<I", ARG) == (1,)


@pytest.mark.parametrize(("domid", "wanted"), [(DOMID_SELF, 0), (US, 0), (0, -EPERM), (2, -ESRCH)])
def test_get_version(guest: Guest, domid: int, wanted: int) -> None:
    guest.put("<H2xI", ARG, domid, 9)
    assert op(guest, GET_VERSION) == wanted
    assert guest.get("<I", ARG + 4) == (9 if wanted else 1,)


def setup(guest: Guest, frames: int, domid: int = DOMID_SELF, pointer: int = BUFFER) -> tuple[int, tuple[int, ...]]:
    """Return the status and the frame list. Struct gnttab_setup_table: 24 bytes, 16 for 32-bit callers."""
    layout, word = ("<H2xIh6xQ", "Q") if guest.bits == 64 else ("<H2xIh2xI", "I")
    guest.put(f"<4{word}", BUFFER, 0, 0, 0, 0)
    guest.put(layout, ARG, domid, frames, 7, pointer)
    assert op(guest, SETUP) == 0
    return guest.get("<h", ARG + 8)[0], guest.get(f"<4{word}", BUFFER)


def test_setup_tells_where_frames_are(table: Guest) -> None:
    nowhere = (1 << table.bits) - 1
    assert setup(table, 2) == (0, (TABLE, nowhere, 0, 0))
    assert query(table)[0] == 2
    assert setup(table, 65)[0] == GENERAL
    assert setup(table, 1, pointer=RAM)[0] == ADDRESS


def test_the_toolstack_has_granted_console_and_xenstore_to_domain_0(table: Guest) -> None:
    assert table.get("<HHIHHI", TABLE << 12) == (PERMIT, 0, CONSOLE >> 12, PERMIT, 0, 0xFEFFC)


End = tuple[int, int, int]


def copy(guest: Guest, source: End, target: End, size: int, flags: int) -> int:
    """Return the status. Ends: reference or frame, domain, offset. 40 bytes, 24 for 32-bit callers."""
    layout = "<QHH4xQHH4xHHh" if guest.bits == 64 else "<IHHIHHHHh"
    guest.put(layout, ARG, *source, *target, size, flags, 7)
    assert op(guest, COPY) == 0
    return guest.get("<h", ARG + (36 if guest.bits == 64 else 20))[0]


BY_REF = (REF, US, 0)
OWN = (GFN, DOMID_SELF, 0)
OTHER = (GFN + 3, DOMID_SELF, 0x10)


def test_copies_go_from_frame_to_frame(table: Guest) -> None:
    table.ram.write(SPARE, b"bytes")
    assert copy(table, OWN, OTHER, 5, 0) == 0
    assert table.ram.read(SPARE + 0x3010, 5) == b"bytes"


@pytest.mark.parametrize("write", [False, True])
def test_copies_go_by_reference_and_leave_no_mark_of_use(table: Guest, *, write: bool) -> None:
    table.ram.write(SPARE, b"bytes")
    entry(table, REF, PERMIT, US, GFN + 3 if write else GFN)
    source, target = (OWN, BY_REF) if write else (BY_REF, OTHER)
    assert copy(table, source, target, 5, 2 if write else 1) == 0
    assert table.ram.read(SPARE + (0x3000 if write else 0x3010), 5) == b"bytes"
    assert table.get("<H", (TABLE << 12) + REF * 8) == (PERMIT,)


@pytest.mark.parametrize(
    ("flags", "domid", "write", "wanted"),
    [
        (0, US, False, GENERAL), (2, US, False, GENERAL), (3, US, False, GENERAL), (PERMIT, 0, False, GENERAL),
        (PERMIT | READONLY, US, True, GENERAL), (PERMIT | READONLY, US, False, 0),
    ],
)  # fmt: skip
def test_a_grant_permits_what_it_says(table: Guest, flags: int, domid: int, write: bool, wanted: int) -> None:  # noqa: FBT001
    entry(table, REF, flags, domid, GFN)
    ends = (OTHER, BY_REF) if write else (BY_REF, OTHER)
    assert copy(table, *ends, 5, 2 if write else 1) == wanted
    assert table.get("<H", (TABLE << 12) + REF * 8) == (flags,)


@pytest.mark.parametrize(
    ("source", "flags", "wanted"),
    [
        ((GFN, US, 0), 0, PERMISSION), ((GFN, 0, 0), 0, PERMISSION), ((512, US, 0), 1, GNTREF),
        ((REF, 9, 0), 1, DOMAIN), ((REF, 0, 0), 1, GENERAL), ((RAM >> 12, DOMID_SELF, 0), 0, PAGE),
        ((GFN, DOMID_SELF, 4092), 0, COPY_ARG),
        ((GFN, DOMID_SELF, 4091), 0, 0), ((GFN, DOMID_SELF, 0xFFFF), 0, COPY_ARG),
    ],
)  # fmt: skip
def test_bad_ends_have_a_status_each(table: Guest, source: End, flags: int, wanted: int) -> None:
    """A frame of one's own is named through DOMID_SELF only (gnttab_copy_lock_domain)."""
    assert copy(table, source, OTHER, 5, flags) == wanted
    entry(table, REF, PERMIT, US, GFN + 4)
    assert copy(table, BY_REF, source, 5, 1 | flags << 1) == wanted
    assert table.get("<H", (TABLE << 12) + REF * 8) == (PERMIT,), "the other end was let go"


def test_a_granted_frame_must_be_memory(table: Guest) -> None:
    entry(table, REF, PERMIT, US, RAM >> 12)
    assert copy(table, BY_REF, OTHER, 5, 1) == PAGE
    assert table.get("<H", (TABLE << 12) + REF * 8) == (PERMIT,)


def test_several_operations_have_a_status_each(table: Guest) -> None:
    layout = "<QHH4xQHH4xHHh2x" if table.bits == 64 else "<IHHIHHHHh2x"
    size = struct.calcsize(layout)
    assert size == (40 if table.bits == 64 else 24)
    for index, length in enumerate((5, 5000, 5)):
        table.put(layout, ARG + index * size, *OWN, *OTHER, length, 0, 7)
    assert op(table, COPY, 3) == 0
    assert [table.get("<h", ARG + index * size + size - 4)[0] for index in range(3)] == [0, COPY_ARG, 0]


def test_operations_end_where_memory_does(table: Guest) -> None:
    assert table.call(GRANT_TABLE_OP, COPY, RAM - 48, 0x7FFFFFFF) == -EFAULT


@pytest.mark.parametrize(
    ("flags", "ref", "domid", "wanted"),
    [
        (0, REF, US, GNTREF), (1, REF, US, GENERAL), (2 | 8, REF, US, GENERAL), (2 | 16, REF, US, GENERAL),
        (2, REF, DOMID_SELF, DOMAIN), (2, REF, 9, DOMAIN), (2, REF, 0, GENERAL), (2, 512, US, GNTREF),
        (2, 0, US, GENERAL), (2, REF, US, NO_SPACE), (2 | 4, REF + 1, US, PAGE),
    ],
)  # fmt: skip
def test_nothing_can_be_mapped(table: Guest, flags: int, ref: int, domid: int, wanted: int) -> None:
    """Domain 0 grants nothing; one's own page at a second frame is a deviation of ours (docs/design.md)."""
    entry(table, REF, PERMIT, US, GFN)
    entry(table, REF + 1, PERMIT, US, RAM >> 12)
    table.put("<QIIHhIQ", ARG, SPARE, flags, ref, domid, 7, 7, 7)
    assert op(table, MAP) == 0
    assert table.get("<h", ARG + 18) == (wanted,)


def test_so_no_handle_is_one(guest: Guest) -> None:
    for index in range(2):
        guest.put("<QQIh", ARG + 24 * index, SPARE, 0, index, 7)
    assert op(guest, UNMAP, 2) == 0
    assert [guest.get("<h", ARG + 24 * index + 20)[0] for index in range(2)] == [HANDLE, HANDLE]


@pytest.mark.parametrize(
    ("first", "second", "status"), [(REF, 511, 0), (REF, REF, 0), (REF, 512, GNTREF), (512, REF, GNTREF)]
)
def test_entries_change_places(table: Guest, first: int, second: int, status: int) -> None:
    entry(table, REF, PERMIT, US, GFN)
    entry(table, 511, 0, 5, 6)
    table.put("<IIh", ARG, first, second, 7)
    assert op(table, SWAP) == 0
    assert table.get("<h", ARG + 8) == (status,)
    swapped = status == 0 and first != second
    assert table.get("<HHI", (TABLE << 12) + 511 * 8) == ((PERMIT, US, GFN) if swapped else (0, 5, 6))
