"""Notes on their own: the record of each, and those of other owners."""

from __future__ import annotations

from elfwriter import Elf, Load, entry_note, kernel, note, notes, u32, u64
from pvh.abi import elfnote
from pvh.kernel import notes as walker
from pvh.kernel.banner import find_version, with_banner
from pvh.kernel.read import read_source
from pvh.kernel.record import Kernel, Note
from pvh.kernel.source import BytesSource


def read(data: bytes) -> Kernel:
    return read_source(BytesSource("kernel", data))


def test_a_note_says_where_it_was_found() -> None:
    (found,) = read(kernel(entry_note())).notes
    assert found == Note("Xen", 18, "PHYS32_ENTRY", u32(0x100000), 0x100000, 0xD0, "segment 1")


def test_all_twenty_kinds_have_a_name() -> None:
    assert list(elfnote.KINDS) == list(range(elfnote.MAX + 1))
    assert elfnote.MAX == 19


def test_build_id_and_linux_version() -> None:
    ours = read(kernel(note(3, b"\xde\xad", owner=b"GNU\0"), note(0, u32(0x0006_01C0), owner=b"Linux\0"), entry_note()))
    assert (ours.build_id, ours.linux_version) == ("dead", "6.1.192")
    assert [(found.owner, found.name) for found in ours.notes[:2]] == [
        ("GNU", "BUILD_ID"),
        ("Linux", "LINUX_VERSION_CODE"),
    ]


def test_other_notes_of_those_owners_say_nothing() -> None:
    ours = read(
        kernel(
            note(1, b"\xde\xad\xbe\xef", owner=b"GNU\0"),
            note(3, b"\xde\xad\xbe\xef", owner=b"Go\0"),
            note(0x100, b"salt", owner=b"Linux\0"),
            note(0, b"12345", owner=b"Linux\0"),
            note(0, b"1234", owner=b"FreeBSD\0"),
            entry_note(),
        )
    )
    assert (ours.build_id, ours.linux_version) == ("", "")
    assert [found.value for found in ours.notes[:5]] == [None] * 5
    assert ours.notes[2].name == "BUILD_SALT"


def test_the_first_build_id_counts() -> None:
    ids = (note(3, b"\1", owner=b"GNU\0"), note(3, b"\2", owner=b"GNU\0"))
    assert read(kernel(*ids, entry_note())).build_id == "01"


def test_l1_mfn_valid_of_32_bit_kernels() -> None:
    assert read(kernel(entry_note(), note(13, u32(1, 1)))).notes[1].value == (1, 1)
    assert read(kernel(entry_note(), note(13, u64(1, 1, 3, 1)))).notes[1].value == (1, 1, 3, 1)


def test_a_note_may_end_behind_its_segment() -> None:
    """Only a note's start must lie inside (libelf-dominfo.c, elf_xen_parse_notes)."""
    records = note(6, b"linux\0") + entry_note()
    data = Elf((Load(), notes(records, filesz=len(records) - len(entry_note()) + 1))).build()
    assert read(data).entry == 0x100000


def test_a_segment_ends_its_notes() -> None:
    records = entry_note() + entry_note(0x100004)
    data = Elf((Load(), notes(records, filesz=len(entry_note())))).build()
    assert read(data).entry == 0x100000


def test_sizes_are_padded_in_32_bits() -> None:
    assert [walker.padded(size) for size in (0, 1, 4, 5, 0xFFFFFFFC, 0xFFFFFFFD)] == [0, 4, 4, 8, 0xFFFFFFFC, 0]


def test_long_descriptors_are_not_kept_whole() -> None:
    ours = read(kernel(entry_note(), note(5, bytes(10000), owner=b"Other\0")))
    assert len(ours.notes[1].desc) == 4096


def test_a_reader_serves_neighbours_from_one_read() -> None:
    calls: list[tuple[int, int]] = []

    class Counting(BytesSource):
        __slots__ = ()

        def read(self, offset: int, count: int) -> bytes:
            calls.append((offset, count))
            return BytesSource.read(self, offset, count)

    reader = walker.Reader(Counting("kernel", bytes(range(256)) * 1024))
    assert reader.read(0x100, 4) == reader.read(0x100, 4) == reader.read(0x200, 4) == b"\0\1\2\3"
    assert reader.read(0x200, 0) == b""
    assert reader.read(0x100 + (1 << 16) - 4, 4) == b"\xfc\xfd\xfe\xff"
    assert len(calls) == 1
    assert reader.read(0x100 + (1 << 16) - 4, 5) == b"\xfc\xfd\xfe\xff\0"
    assert reader.read(0, 2) == b"\0\1"
    assert len(calls) == 3


def test_a_banner_names_linux_where_nothing_else_does() -> None:
    text = b"Linux version %s (%s)\0" + b"Linux version 6.9.1-test (me@here) #1\0"
    far = Load(data=bytes((1 << 20) - 70) + text)
    ours = read(kernel(entry_note(), note(6, b"linux\0"), loads=(far,)))
    assert ours.linux_version == ""
    assert with_banner(ours).linux_version == "6.9.1-test"


def test_a_banner_is_looked_for_in_linux_only() -> None:
    text = Load(data=b"Linux version 6.9.1-test (me@here) #1\0")
    assert with_banner(read(kernel(entry_note(), loads=(text,)))).linux_version == ""
    assert with_banner(read(kernel(entry_note(), note(6, b"FreeBSD\0"), loads=(text,)))).linux_version == ""
    told = read(kernel(entry_note(), note(6, b"linux\0"), note(0, u32(0x60000), owner=b"Linux\0"), loads=(text,)))
    assert with_banner(told).linux_version == "6.0.0"


def test_no_banner() -> None:
    assert find_version(BytesSource("kernel", b"Linux version \xff")) == ""
    assert find_version(BytesSource("kernel", b"Linux version 6\xff.1 ")) == ""
