"""Names of addresses: ELF specification, chapter "Symbol Table", in both classes."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import elfwriter
from elfwriter import SHT_STRTAB, SHT_SYMTAB, Load, Section
from pvh.kernel.read import read_kernel, read_source
from pvh.kernel.record import Kernel
from pvh.kernel.source import BytesSource
from pvh.symbols import LONGEST_NAME, MOST_SYMBOLS, Symbols

LOCAL, GLOBAL = 0, 1
NOTYPE, OBJECT, FUNC, SECTION, FILE = 0, 1, 2, 3, 4
UNDEF, TEXT, ABS = 0, 1, 0xFFF1


@dataclass(frozen=True)
class Sym:
    name: bytes
    value: int
    size: int = 0
    type: int = FUNC
    bind: int = GLOBAL
    section: int = TEXT


def tables(*symbols: Sym, bits: int = 64, claim: int | None = None, link: int = 2) -> tuple[Section, Section]:
    """Return .symtab (section 1) and .strtab (section 2), in that order."""
    strings, rows = b"\0", bytes(24 if bits == 64 else 16)
    for s in symbols:
        info = s.bind << 4 | s.type
        if bits == 64:
            rows += struct.pack("<IBBHQQ", len(strings), info, 0, s.section, s.value, s.size)
        else:
            rows += struct.pack("<IIIBBH", len(strings), s.value, s.size, info, 0, s.section)
        strings += s.name + b"\0"
    return (
        Section(".symtab", rows, SHT_SYMTAB, link=link, size=claim),
        Section(".strtab", strings, SHT_STRTAB),
    )


def kernel(*sections: Section, bits: int = 64, loads: tuple[Load, ...] = (Load(memsz=0x1000),)) -> Kernel:
    segments = (*loads, elfwriter.notes(elfwriter.entry_note()))
    return read_source(BytesSource("k", elfwriter.Elf(segments, sections, bits=bits).build()))


def name(made: Kernel, vaddr: int, load: int = 0) -> str | None:
    place = Symbols(made).at(vaddr, made.loads[load])
    return None if place is None else str(place)


@pytest.mark.parametrize("bits", [32, 64])
def test_an_address_is_the_symbol_before_it_an_offset_and_the_symbols_size(bits: int) -> None:
    made = kernel(*tables(Sym(b"start", 0x100000), Sym(b"main", 0x100010, 0x20), bits=bits), bits=bits)
    assert name(made, 0x100000) == "start+0x0"
    assert name(made, 0x10000F) == "start+0xf"
    assert name(made, 0x100010) == "main+0x0/0x20"
    assert name(made, 0x100040) == "main+0x30/0x20"  # behind its end, and one sees that


def test_of_symbols_at_one_address_a_global_function_is_the_name() -> None:
    same = (
        Sym(b"global_function", 0x100000),
        Sym(b"local_function", 0x100000, bind=LOCAL),
        Sym(b"label", 0x100000, type=NOTYPE),
    )
    assert name(kernel(*tables(*same)), 0x100004) == "global_function+0x4"
    assert name(kernel(*tables(*reversed(same))), 0x100004) == "global_function+0x4"


@pytest.mark.parametrize(
    "other",
    [
        Sym(b"elsewhere", 0x100004, section=UNDEF),
        Sym(b"CONSTANT", 0x100004, section=ABS),
        Sym(b".text", 0x100004, type=SECTION),
        Sym(b"main.c", 0x100004, type=FILE),
        Sym(b"", 0x100004),
    ],
    ids=lambda other: other.name.decode() or "nameless",
)
def test_what_names_no_place_in_a_section_is_no_name(other: Sym) -> None:
    table, strings = tables(Sym(b"start", 0x100000), other)
    if not other.name:  # st_name 0: no name
        table = Section(table.name, table.data[:-24] + bytes(4) + table.data[-20:], SHT_SYMTAB, link=2)
    assert name(kernel(table, strings), 0x100008) == "start+0x8"


def test_a_symbol_of_another_segment_is_no_name() -> None:
    loads = (Load(0x100000, vaddr=0xC0100000, memsz=0x1000), Load(0x200000, vaddr=0xC0200000, memsz=0x1000))
    made = kernel(*tables(Sym(b"start", 0xC0100000)), loads=loads)
    assert name(made, 0xC0100008, 0) == "start+0x8"
    assert name(made, 0xC0200008, 1) is None


def test_before_the_first_symbol_there_is_no_name() -> None:
    assert name(kernel(*tables(Sym(b"start", 0x100010))), 0x100008) is None


def test_a_kernel_without_a_symbol_table_has_no_names() -> None:
    assert name(kernel(), 0x100000) is None


def test_a_symbol_table_without_strings_has_no_names() -> None:
    assert name(kernel(*tables(Sym(b"start", 0x100000), link=77)), 0x100000) is None


def test_a_name_outside_the_string_table_is_a_question_mark() -> None:
    table, strings = tables(Sym(b"start", 0x100000))
    bad = Section(table.name, table.data[:24] + struct.pack("<I", 1 << 30) + table.data[28:], SHT_SYMTAB, link=2)
    assert name(kernel(bad, strings), 0x100000) == "?+0x0"


def test_names_are_cut_and_cleaned_of_what_a_terminal_would_obey() -> None:
    assert name(kernel(*tables(Sym(b"\x1b[2Jboot\xff", 0x100000))), 0x100000) == "?[2Jboot\ufffd+0x0"
    assert name(kernel(*tables(Sym(b"n" * 4000, 0x100000))), 0x100000) == "n" * LONGEST_NAME + "+0x0"


@dataclass(frozen=True)
class Counting:
    """A source that keeps the largest count it was asked for."""

    path: str
    data: bytes
    asked: list[int]

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, count: int) -> bytes:
        self.asked.append(count)
        return self.data[offset : offset + count]


def test_a_table_that_claims_more_than_any_kernel_has_is_read_within_bounds() -> None:
    sections = tables(Sym(b"start", 0x100000), claim=1 << 60)
    data = elfwriter.Elf((Load(memsz=0x1000), elfwriter.notes(elfwriter.entry_note())), sections).build()
    source = Counting("k", data, [])
    made = read_source(source)
    source.asked.clear()
    assert name(made, 0x100000) == "start+0x0"
    assert max(source.asked) <= MOST_SYMBOLS * 24


def test_a_file_cut_since_it_was_read_has_no_names() -> None:
    made = kernel(*tables(Sym(b"start", 0x100000)))
    cut = replace(made, source=BytesSource("k", made.source.read(0, 40)))
    assert name(cut, 0x100000) is None


@dataclass(frozen=True)
class Dying(Counting):
    """A source on a disk that fails beyond an offset."""

    def read(self, offset: int, count: int) -> bytes:
        if self.asked and offset >= self.asked[0]:
            raise OSError(5, "Input/output error")
        return self.data[offset : offset + count]


def test_a_disk_that_fails_costs_names_never_the_run() -> None:
    made = kernel(*tables(Sym(b"start", 0x100000)))
    source = Dying("k", made.source.read(0, made.source.size), [])
    symbols = Symbols(replace(made, source=source))
    source.asked.append(0)
    assert str(symbols.at(0x100000, made.loads[0])) == "?+0x0"
    assert name(replace(made, source=source), 0x100000) is None


@pytest.mark.parametrize("guest", ["entry32.elf", "entry64.elf"])
def test_a_linkers_own_table_reads_as_nm_reads_it(guest: str, root: Path) -> None:
    path = str(root / "tests" / "guests" / guest)
    made = read_kernel(path)
    listed = subprocess.run(["nm", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    assert rows
    for value, kind, symbol in rows:
        if kind in "tTdDbBrR":
            vaddr = int(value, 16)
            inside = [segment for segment in made.loads if 0 <= vaddr - segment.vaddr < segment.memsz]
            if inside:
                assert str(Symbols(made).at(vaddr, inside[0])) == f"{symbol}+0x0"
