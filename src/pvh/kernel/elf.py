"""ELF headers, as far as a loader needs them: program headers, note sections, the symbol table's size.

Little-endian ELF32 and ELF64; sizes and offsets in bytes. What lies outside the file reads as zero, as in libelf
(xen/common/libelf/libelf-tools.c, elf_access_unsigned), so a table entry cut by the end of the file is no error here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pvh.errors import NotAKernel
from pvh.kernel.record import Segment
from pvh.kernel.source import Source
from pvh.record import dataclass

MAGIC = b"\x7fELF"
PT_LOAD, PT_INTERP, PT_NOTE = 1, 3, 4
SHT_SYMTAB, SHT_STRTAB, SHT_NOTE = 2, 3, 7
EM_386, EM_ARM, EM_X86_64 = 3, 40, 62

# All that follows e_ident: e_type, e_machine, e_version, e_entry, e_phoff, e_shoff, e_flags, e_ehsize, e_phentsize,
# e_phnum, e_shentsize, e_shnum, e_shstrndx
_EHDR = {32: struct.Struct("<HHIIIIIHHHHHH"), 64: struct.Struct("<HHIQQQIHHHHHH")}
# ELF32: type, offset, vaddr, paddr, filesz, memsz, flags, align. ELF64: type, flags, offset, vaddr, ...
_PHDR = {32: struct.Struct("<IIIIIIII"), 64: struct.Struct("<IIQQQQQQ")}
# name, type, flags, addr, offset, size, link, info, addralign, entsize
_SHDR = {32: struct.Struct("<IIIIIIIIII"), 64: struct.Struct("<IIQQQQIIQQ")}


@dataclass(frozen=True, slots=True)
class Header:
    """The ELF header's fields that a loader reads."""

    bits: int
    type: int
    machine: int
    entry: int
    phoff: int
    shoff: int
    ehsize: int
    phentsize: int
    phnum: int
    shentsize: int
    shnum: int
    shstrndx: int


@dataclass(frozen=True, slots=True)
class Section:
    """The section header's fields that a loader reads; name is an offset into the string table."""

    index: int
    name: int
    type: int
    offset: int
    size: int
    link: int
    flags: int = 0


def read_header(source: Source) -> Header:
    """Return the ELF header of a source that starts with ELF's magic.

    Raises NotAKernel when it is big-endian or of no known class, or when header or tables reach beyond the file.
    """
    ident = source.read(0, 16).ljust(16, b"\0")
    bits = {1: 32, 2: 64}.get(ident[4], 0)
    if not bits:
        raise NotAKernel(
            "is an ELF file of no known class", path=source.path, offset=4, found=str(ident[4]), wanted="1 or 2"
        )
    if ident[5] != 1:
        raise NotAKernel(
            "is an ELF file that is not little-endian",
            path=source.path,
            offset=5,
            found=str(ident[5]),
            wanted="1 (ELFDATA2LSB)",
            hint="x86 kernels are little-endian: this one is for another machine",
        )
    layout = _EHDR[bits]
    data = source.read(16, layout.size)
    if len(data) < layout.size:
        raise _cut_short(source, "ELF header", 16 + layout.size)
    etype, machine, _, entry, phoff, shoff, _, *rest = layout.unpack(data)
    header = Header(bits, etype, machine, entry, phoff, shoff, *rest)
    _require_tables_inside(source, header)
    return header


def _require_tables_inside(source: Source, header: Header) -> None:
    """Refuse tables that reach beyond the file, even empty ones (libelf-loader.c, elf_init)."""
    for name, offset, size in (
        ("program header table", header.phoff, header.phentsize * header.phnum),
        ("section header table", header.shoff, header.shentsize * header.shnum),
    ):
        if offset + size > source.size:
            raise _cut_short(source, name, offset + size)


def _cut_short(source: Source, what: str, end: int) -> NotAKernel:
    return NotAKernel(
        f"is a damaged ELF file: its {what} reaches beyond the file",
        path=source.path,
        found=f"{source.size} bytes",
        wanted=f"{end} bytes at least",
        hint="it was cut short, perhaps by a broken download or a full disk: get it again",
    )


def _rows(source: Source, layout: struct.Struct, offset: int, stride: int, count: int) -> Iterator[tuple[int, ...]]:
    """Yield a table's rows; they lie stride bytes apart, whatever size the class gives a row, as libelf strides."""
    size = max(0, stride * (count - 1) + layout.size)
    table = source.read(offset, size).ljust(size, b"\0")
    for index in range(count):
        yield layout.unpack_from(table, index * stride)


def read_segments(source: Source, header: Header) -> tuple[Segment, ...]:
    """Return every program header, in the file's order."""
    rows = _rows(source, _PHDR[header.bits], header.phoff, header.phentsize, header.phnum)
    # ELF32 keeps the flags behind the sizes, ELF64 behind the type.
    order = (0, 1, 2, 3, 4, 5, 6, 7) if header.bits == 64 else (0, 6, 1, 2, 3, 4, 5, 7)
    return tuple(Segment(index, *(row[field] for field in order)) for index, row in enumerate(rows))


def read_sections(source: Source, header: Header) -> tuple[Section, ...]:
    """Return every section header, in the file's order."""
    rows = _rows(source, _SHDR[header.bits], header.shoff, header.shentsize, header.shnum)
    return tuple(Section(index, row[0], row[1], row[4], row[5], row[6], row[2]) for index, row in enumerate(rows))


def section_name(source: Source, header: Header, sections: tuple[Section, ...], section: Section) -> str:
    """Return a section's name, or its number where the string table gives none. Names are cut at 64 bytes."""
    strings = sections[header.shstrndx] if 0 < header.shstrndx < len(sections) else None
    name = source.read(strings.offset + section.name, 64).split(b"\0")[0] if strings else b""
    return name.decode("latin-1") or str(section.index)


def symbol_table_room(header: Header, sections: tuple[Section, ...], end: int) -> int:
    """Return where an image ends when Xen appends its symbol table behind end, because BSD_SYMTAB says `yes`.

    The room holds a size, an ELF header with three section headers, symbols and strings, each rounded up
    (libelf-loader.c, elf_parse_bsdsyms). Without a symbol table nothing is appended.
    """
    word = header.bits // 8
    size = 0
    for table in sections:
        if table.type != SHT_SYMTAB or table.link >= len(sections):
            continue
        size = size or _round_up(4 + header.ehsize + 3 * header.shentsize, word)
        size = _round_up(size + table.size, word)
        strings = sections[table.link]
        if strings.type != SHT_STRTAB:
            break
        size = _round_up(size + strings.size, word)
    return _round_up(end, word) + size if size else end


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
