"""read_kernel: from a path to a Kernel record, read and judged."""

from __future__ import annotations

import os

from pvh import given
from pvh.abi import elfnote
from pvh.kernel import elf, oddities, verdict
from pvh.kernel.container import open_container
from pvh.kernel.features import fold
from pvh.kernel.notes import read_notes
from pvh.kernel.record import Kernel, Layer, Note, Relocation, Segment
from pvh.kernel.source import Source, open_source
from pvh.record import replace


def read_kernel(path: str | os.PathLike[str]) -> Kernel:
    """Read the kernel image at path (`-`: standard input) and judge it by libxenguest's rules.

    Of an uncompressed file only headers and notes are read. A kernel that cannot boot is returned too, with its
    problems; require_bootable() raises them. Raises UsageError when the file cannot be read, NotAKernel when it is
    no ELF kernel, bzImage, or gzip of one, or is damaged.

    >>> pvh.read_kernel(pvh.demo_path()).bootable
    True
    """
    return read_source(open_source(given.path("a kernel", path)))


def read_source(source: Source) -> Kernel:
    """Do read_kernel's work on bytes that are already open."""
    layers, inner, version = open_container(source)
    header = elf.read_header(inner)
    segments = elf.read_segments(inner, header)
    walk = read_notes(inner, header, segments)
    start, end = image_span(segments)
    notes = tuple(walk.notes)
    kernel = Kernel(
        path=source.path,
        source=inner,
        layers=(*layers, Layer(f"ELF{header.bits}", 0, inner.size)),
        bits=header.bits,
        type=header.type,
        machine=header.machine,
        e_entry=header.entry,
        segments=segments,
        notes=notes,
        entry=phys32_entry(notes),
        start=start,
        end=_with_symbols(inner, header, notes, end),
        features=fold(notes),
        relocation=relocation(notes, segments),
        build_id=next((str(note.value) for note in notes if (note.owner, note.name) == ("GNU", "BUILD_ID")), ""),
        linux_version=version or _version_code(notes),
    )
    kernel = replace(kernel, warnings=(*walk.findings, *oddities.warnings(kernel)))
    return replace(kernel, problems=verdict.problems(kernel))


def image_span(segments: tuple[Segment, ...]) -> tuple[int, int]:
    """Return the lowest p_paddr and the highest end of the segments that load (libelf-loader.c, elf_parse_binary)."""
    loads = [segment for segment in segments if segment.loads]
    return min((s.paddr for s in loads), default=0), max((s.end for s in loads), default=0)


def phys32_entry(notes: tuple[Note, ...]) -> int | None:
    """Return the entry that the last PHYS32_ENTRY gives, in 32 bits; None when there is none or it says unset."""
    entry = elfnote.PHYS32_UNSET
    for note in notes:
        if note.owner == elfnote.OWNER and note.type == elfnote.PHYS32_ENTRY and isinstance(note.value, int):
            entry = note.value & 0xFFFFFFFF
    return None if entry == elfnote.PHYS32_UNSET else entry


def relocation(notes: tuple[Note, ...], segments: tuple[Segment, ...]) -> Relocation | None:
    """Return what PHYS32_RELOC allows. Where it gives no alignment, the largest p_align of a page or more counts."""
    for note in reversed(notes):
        if note.owner == elfnote.OWNER and note.type == elfnote.PHYS32_RELOC and isinstance(note.value, tuple):
            largest = max((segment.align for segment in segments if segment.loads), default=0)
            align = largest if largest >= 4096 else elfnote.RELOC_ALIGN
            defaults = (align, elfnote.RELOC_MIN, elfnote.RELOC_MAX)
            given = note.value[:3]
            return Relocation(*given, *defaults[len(given) :])
    return None


def _with_symbols(source: Source, header: elf.Header, notes: tuple[Note, ...], end: int) -> int:
    """Return the image's end with the room for symbols that BSD_SYMTAB asks for; any such note of `yes` counts."""
    for note in notes:
        if note.owner == elfnote.OWNER and note.type == elfnote.BSD_SYMTAB and note.value == "yes":
            return elf.symbol_table_room(header, elf.read_sections(source, header), end)
    return end


def _version_code(notes: tuple[Note, ...]) -> str:
    """Return the version in Linux's own note, LINUX_VERSION_CODE: a byte for the patch level, a byte, the rest."""
    for note in notes:
        if (note.owner, note.type) == ("Linux", 0) and isinstance(note.value, int):
            return f"{note.value >> 16}.{note.value >> 8 & 0xFF}.{note.value & 0xFF}"
    return ""
