"""ELF tables as libelf walks them."""

from __future__ import annotations

import pytest

from elfwriter import SHT_NOTE, Elf, Load, Section, entry_note, note, notes, u32
from pvh.kernel import elf
from pvh.kernel.read import read_source
from pvh.kernel.record import Kernel, Segment
from pvh.kernel.source import BytesSource


def read(data: bytes) -> Kernel:
    return read_source(BytesSource("kernel", data))


@pytest.mark.parametrize("bits", [32, 64])
def test_every_field_of_a_segment(bits: int) -> None:
    load = Load(0x100000, b"1234", memsz=0x2000, flags=5, align=0x10, vaddr=0x80100000)
    (segment, _) = read(Elf((load, notes(entry_note())), bits=bits).build()).segments
    offset = 64 + 2 * 56 if bits == 64 else 120
    assert segment == Segment(0, 1, 5, offset, 0x80100000, 0x100000, 4, 0x2000, 0x10)


def test_the_header() -> None:
    kernel = read(Elf((Load(), notes(entry_note())), header={"entry": 0x1234, "type": 3}).build())
    assert (kernel.e_entry, kernel.type, kernel.machine, kernel.bits) == (0x1234, 3, 62, 64)


@pytest.mark.parametrize("phentsize", [56, 72, 128])
def test_program_headers_lie_phentsize_apart(phentsize: int) -> None:
    data = Elf((Load(), Load(0x200000), notes(entry_note())), header={"phentsize": phentsize}).build()
    assert [segment.paddr for segment in read(data).loads] == [0x100000, 0x200000]
    assert read(data).entry == 0x100000


def test_section_headers_lie_shentsize_apart() -> None:
    sections = (Section("a", b"x"), Section("n", entry_note(), SHT_NOTE))
    assert read(Elf(sections=sections, header={"shentsize": 96}).build()).entry == 0x100000


def test_a_table_entry_cut_by_the_end_of_the_file_reads_as_zeroes() -> None:
    """e_phentsize 1 puts the whole table inside the file, though its last rows are not."""
    data = Elf((Load(),), header={"phentsize": 56}).build()[: 64 + 8]
    data = data[:54] + (8).to_bytes(2, "little") + data[56:]
    kernel = read(data)
    assert kernel.segments == (Segment(0, 1, 5, 0, 0, 0, 0, 0, 0),)


def test_a_file_without_program_headers() -> None:
    kernel = read(Elf(()).build())
    assert kernel.segments == ()
    assert [finding.code for finding in kernel.problems] == ["phys32-entry-missing", "segment-none"]


def test_tables_may_end_where_the_file_ends() -> None:
    assert read(Elf(sections=(Section("n", entry_note(), SHT_NOTE),)).build()).entry == 0x100000
    assert read(Elf().build()[: 64 + 56]).segments[0].memsz == 32


@pytest.mark.parametrize(
    ("shstrndx", "where"),
    [(2, "section .note.Xen"), (3, "section 1"), (0, "section 1")],
)
def test_a_section_without_a_name_is_called_by_its_number(shstrndx: int, where: str) -> None:
    """Index 0 is the null section: it holds no names, and what lies at its offset 0 is the file's own head."""
    data = Elf(sections=(Section(".note.Xen", entry_note(), SHT_NOTE),), header={"shstrndx": shstrndx}).build()
    assert read(data).notes[0].where == where


def test_long_section_names_are_cut() -> None:
    data = Elf(sections=(Section("n" * 100, entry_note(), SHT_NOTE),)).build()
    assert read(data).notes[0].where == "section " + "n" * 64


def test_a_section_header_table_of_one_byte_rows() -> None:
    """A stride below a row's size makes rows overlap; libelf reads them all the same."""
    data = Elf((Load(), notes(note(6, b"linux\0"))), header={"shoff": 64, "shnum": 3, "shentsize": 1}).build()
    header = elf.read_header(BytesSource("kernel", data))
    assert len(elf.read_sections(BytesSource("kernel", data), header)) == 3


def test_symbols_without_strings_type() -> None:
    header = elf.read_header(BytesSource("kernel", Elf().build()))
    table = elf.Section(1, 0, elf.SHT_SYMTAB, 0, 16, 0)
    other = elf.Section(0, 0, 0, 0, 99, 0)
    assert elf.symbol_table_room(header, (other, table), 0x1000) == 0x1000 + (4 + 64 + 4) + 16


def test_only_headers_and_notes_of_a_large_file_are_read() -> None:
    """Reading a 60 MB kernel costs reads of headers and notes, not of the kernel."""
    data = Elf((Load(data=bytes(60 << 20)), notes(entry_note()))).build()

    class Counting(BytesSource):
        __slots__ = ("taken",)

        def read(self, offset: int, count: int) -> bytes:
            found = BytesSource.read(self, offset, count)
            object.__setattr__(self, "taken", getattr(self, "taken", 0) + len(found))
            return found

    source = Counting("vmlinux", data)
    assert read_source(source).bootable
    assert getattr(source, "taken", 0) < 1 << 17


def test_u32_is_little_endian() -> None:
    assert u32(1, 2) == b"\1\0\0\0\2\0\0\0"
