"""xen_version and console_io (facts/xen-abi.md, 10.3; xen/common/kernel.c)."""

from __future__ import annotations

import pytest

from pvh.abi.hypercall import CONSOLE_IO, XEN_VERSION
from xen.guest import ARG, BUFFER, RAM, Guest

E2BIG, EFAULT, EINVAL, ENOSYS, ENODATA = 7, 14, 22, 38, 61


def text(guest: Guest, size: int, offset: int = 0) -> bytes:
    raw = guest.ram.read(ARG + offset, size)
    assert raw is not None
    assert raw[-1] == 0
    return raw.rstrip(b"\0")


def test_0_version_is_major_and_minor(guest: Guest) -> None:
    assert guest.call(XEN_VERSION, 0, 0) == 4 << 16 | 20


@pytest.mark.parametrize(
    ("command", "size", "part"),
    [(1, 16, b".0"), (3, 1024, b"hvm-3.0-x86_32"), (4, 64, b""), (9, 1024, b"")],
    ids=["extraversion", "capabilities", "changeset", "commandline"],
)
def test_texts_fill_their_arrays_and_no_byte_more(guest: Guest, command: int, size: int, part: bytes) -> None:
    guest.ram.write(ARG, b"\xaa" * (size + 1))
    assert guest.call(XEN_VERSION, command, ARG) == 0
    assert part in text(guest, size)
    assert guest.ram.read(ARG + size, 1) == b"\xaa"


def test_2_compile_info_is_four_texts(guest: Guest) -> None:
    guest.ram.write(ARG, b"\xaa" * 145)
    assert guest.call(XEN_VERSION, 2, ARG) == 0
    assert all(text(guest, size, offset) for size, offset in ((64, 0), (16, 64), (32, 80), (32, 112)))
    assert guest.ram.read(ARG + 144, 1) == b"\xaa"


def test_3_capabilities_name_the_type_that_libxenguest_asks_for(guest: Guest) -> None:
    """All PVH guests are `hvm-3.0-x86_32`, 64-bit ones too (facts, 1: What the builder rejects)."""
    guest.call(XEN_VERSION, 3, ARG)
    assert b"hvm-3.0-x86_32" in text(guest, 1024).split()


def test_5_platform_parameters_is_one_long_of_the_callers_width(guest: Guest) -> None:
    guest.ram.write(ARG, b"\xaa" * 9)
    assert guest.call(XEN_VERSION, 5, ARG) == 0
    size = guest.bits // 8
    assert guest.ram.read(ARG, 9) == bytes(size) + b"\xaa" * (9 - size)


def test_6_get_features_of_submap_0_is_what_is_implemented(guest: Guest) -> None:
    """Writable page tables, auto_translated_physmap, hvm_callback_vector, hvm_safe_pvclock, not_direct_mapped; and the
    areas by guest-physical address: runstate_phys_area, vcpu_time_phys_area.
    """
    assert guest.op(XEN_VERSION, 6, "<II", 0, 0xAAAA) == 0
    assert guest.get("<II", ARG) == (0, 1 << 0 | 1 << 2 | 1 << 8 | 1 << 9 | 1 << 16 | 1 << 18 | 1 << 19)


def test_6_get_features_of_another_submap_gives_einval(guest: Guest) -> None:
    assert guest.op(XEN_VERSION, 6, "<II", 1, 0xAAAA) == -EINVAL
    assert guest.get("<II", ARG) == (1, 0xAAAA)


def test_7_pagesize_takes_no_argument(guest: Guest) -> None:
    assert guest.call(XEN_VERSION, 7, 0) == 4096
    assert guest.call(XEN_VERSION, 7, ARG) == -EINVAL


def test_8_guest_handle_is_16_bytes(guest: Guest) -> None:
    guest.ram.write(ARG, b"\xaa" * 17)
    assert guest.call(XEN_VERSION, 8, ARG) == 0
    assert guest.ram.read(ARG, 17) == guest.domain.uuid + b"\xaa"


def test_10_build_id_is_not_had(guest: Guest) -> None:
    assert guest.call(XEN_VERSION, 10, 0) == -ENODATA


def test_console_io_write_says_it(guest: Guest) -> None:
    """A deviation: a release build of Xen gives an unprivileged domain -EPERM (docs/design.md)."""
    guest.ram.write(BUFFER, b"hello\n")
    assert guest.call(CONSOLE_IO, 0, 6, BUFFER) == 0
    assert guest.said == b"hello\n"
    assert guest.call(CONSOLE_IO, 0, 0, BUFFER) == 0


def test_console_io_write_of_many_pages_stops_where_memory_does(guest: Guest) -> None:
    """Copied page by page: a count of 4 GiB allocates nothing."""
    assert guest.call(CONSOLE_IO, 0, 0xFFFFFFFF, RAM - 0x2000) == -EFAULT
    assert len(guest.said) == 0x2000


def test_console_io_write_stops_when_the_run_is_ended(guest: Guest) -> None:
    guest.host.stopping = True
    assert guest.call(CONSOLE_IO, 0, 0x10000, BUFFER) == 0
    assert not guest.said


def test_console_io_read_has_nothing(guest: Guest) -> None:
    """The count shares its range with errors, so what is above INT_MAX gives -E2BIG."""
    assert guest.call(CONSOLE_IO, 1, 16, BUFFER) == 0
    assert guest.call(CONSOLE_IO, 1, 0x80000000, BUFFER) == -E2BIG
    assert guest.call(CONSOLE_IO, 2, 0, 0) == -ENOSYS
