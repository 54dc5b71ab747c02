"""ELF notes, walked and decoded as libelf does it (xen/common/libelf/libelf-dominfo.c, libelf-tools.c).

A record is u32 namesz, u32 descsz, u32 type, then name and descriptor, each padded to 4 bytes whatever p_align says.
Names and strings are C strings: their NUL ends them, not namesz or descsz.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pvh.abi import elfnote
from pvh.kernel import elf
from pvh.kernel.record import Finding, Note, NoteValue, Segment
from pvh.kernel.source import Source
from pvh.record import dataclass, field

_RECORD = struct.Struct("<III")
_CHUNK = 1 << 16
_GNU_BUILD_ID = 3

# A descriptor is kept up to this size: no note that has a meaning here is longer, and a hostile one may claim 4 GiB.
MAX_DESC = elfnote.MAX_STRING


@dataclass(slots=True)
class Reader:
    """A source read in chunks: neighbouring notes cost one read."""

    source: Source
    start: int = 0
    data: bytes = field(default=b"", repr=False)

    def read(self, offset: int, count: int) -> bytes:
        """Return up to count bytes from offset; fewer only where the source ends."""
        if not self.start <= offset <= offset + count <= self.start + len(self.data):
            self.start, self.data = offset, self.source.read(offset, max(count, _CHUNK))
        return self.data[offset - self.start : offset - self.start + count]

    def string(self, offset: int) -> str | None:
        """Return the C string at offset; None when the file ends first, or it is longer than libelf reads."""
        text, nul, _ = self.read(offset, elfnote.MAX_STRING + 1).partition(b"\0")
        return text.decode("latin-1") if nul else None


@dataclass(slots=True)
class Walk:
    """The notes found so far, and what was odd about them."""

    reader: Reader
    notes: list[Note] = field(default_factory=list[Note])
    findings: list[Finding] = field(default_factory=list[Finding])
    seen: int = 0

    def table(self, start: int, size: int, where: str) -> bool:
        """Read the notes of one segment or section; tell whether any is Xen's."""
        before = len(self.notes)
        position = start
        while position < start + size:
            step = self._record(position, where)
            if not step:
                break
            position += step
        return any(note.owner == elfnote.OWNER for note in self.notes[before:])

    def _record(self, offset: int, where: str) -> int:
        """Read the note at offset and return its size; 0 ends the table."""
        head = self.reader.read(offset, _RECORD.size)
        if len(head) < _RECORD.size:
            self._odd("note-cut", f"has notes in {where} that run beyond the end of the file", offset)
            return 0
        if self.seen >= elfnote.MAX_NOTES:
            self._odd("note-count", f"has more than {elfnote.MAX_NOTES} notes: Xen reads no further", offset)
            return 0
        self.seen += 1
        namesz, descsz, number = _RECORD.unpack(head)
        desc_at = offset + _RECORD.size + padded(namesz)
        owner = self.reader.string(offset + _RECORD.size)
        if owner is not None:
            self._keep(offset, owner, number, (desc_at, descsz), where)
        return _RECORD.size + padded(namesz) + padded(descsz)

    def _keep(self, offset: int, owner: str, number: int, place: tuple[int, int], where: str) -> None:
        desc_at, descsz = place
        desc = self.reader.read(desc_at, min(descsz, MAX_DESC))
        if len(desc) < min(descsz, MAX_DESC):
            self._odd("note-cut", f"has a note {name_of(owner, number)} that runs beyond the end of the file", offset)
        value: NoteValue = None
        if owner == elfnote.OWNER:
            value = decode(self.reader, number, place)
            if value is None and kind_of(number) == elfnote.STRING:
                # libelf passes over such a note and reads on.
                self._odd(
                    "note-string",
                    f"has a note {name_of(owner, number)} that is no string of 4096 bytes at most",
                    offset,
                )
        elif owner == "GNU" and number == _GNU_BUILD_ID:
            value = desc.hex()
        elif owner == "Linux" and number == 0 and descsz == 4:
            value = int.from_bytes(desc, "little")
        self.notes.append(Note(owner, number, name_of(owner, number), desc, value, offset, where))

    def _odd(self, code: str, cause: str, offset: int) -> None:
        self.findings.append(Finding(code, cause, "ELF note", offset))


def padded(size: int) -> int:
    """Return size rounded up to 4 bytes, in the 32 bits that libelf has for it."""
    return (size + 3) & 0xFFFFFFFC


def kind_of(number: int) -> str:
    """Return the kind of a Xen note's value, "" when Xen does not know the number."""
    return elfnote.KINDS.get(number, ("", ""))[1]


def name_of(owner: str, number: int) -> str:
    """Return the name of a note's number, as far as it has one here."""
    if owner == elfnote.OWNER:
        known = elfnote.KINDS.get(number)
        return known[0] if known else elfnote.DUMP_NAMES.get(number, f"unknown {number:#x}")
    known_elsewhere = {
        ("GNU", _GNU_BUILD_ID): "BUILD_ID",
        ("Linux", 0): "LINUX_VERSION_CODE",
        ("Linux", 0x100): "BUILD_SALT",
    }
    return known_elsewhere.get((owner, number), f"{number:#x}")


def decode(reader: Reader, number: int, place: tuple[int, int]) -> NoteValue:
    """Return the value of a Xen note whose descriptor lies at place (offset, size)."""
    offset, size = place
    kind = kind_of(number)
    if kind == elfnote.STRING:
        return reader.string(offset)
    desc = reader.read(offset, min(size, MAX_DESC))
    if kind == elfnote.INTEGER:
        return integer(desc) if len(desc) == size else 0
    if kind == elfnote.BITMAP:
        return words(desc, 4) if size % 4 == 0 else ()
    if kind == elfnote.WORDS:
        return words(desc, 4)
    if kind == elfnote.PAIRS:
        return words(desc, 8 if size % 16 == 0 else 4)
    return None


def integer(desc: bytes) -> int:
    """Return an integer descriptor's value: 1, 2, 4 or 8 bytes, anything else is 0 (elf_note_numeric)."""
    return int.from_bytes(desc, "little") if len(desc) in {1, 2, 4, 8} else 0


def words(desc: bytes, width: int) -> tuple[int, ...]:
    """Return the whole words of width bytes that a descriptor holds."""
    return tuple(int.from_bytes(desc[at : at + width], "little") for at in range(0, len(desc) - width + 1, width))


def read_notes(source: Source, header: elf.Header, segments: tuple[Segment, ...]) -> Walk:
    """Read the notes of every PT_NOTE segment; only if none of them is Xen's, those of every SHT_NOTE section too."""
    walk = Walk(Reader(source))
    in_segments = [
        walk.table(segment.offset, segment.filesz, f"segment {segment.index}") for segment in note_segments(segments)
    ]
    if not any(in_segments):
        # The same bytes are often in a segment and a section: keep what the segments gave once.
        known = {note.offset for note in walk.notes}
        sections = elf.read_sections(source, header)
        for section in note_sections(sections):
            begin = len(walk.notes)
            name = elf.section_name(source, header, sections, section)
            walk.table(section.offset, section.size, f"section {name}")
            walk.notes[begin:] = [note for note in walk.notes[begin:] if note.offset not in known]
    return walk


def note_segments(segments: tuple[Segment, ...]) -> Iterator[Segment]:
    """Yield the segments to search. Some linkers left p_offset 0, so libelf passes those over."""
    return (segment for segment in segments if segment.type == elf.PT_NOTE and segment.offset)


def note_sections(sections: tuple[elf.Section, ...]) -> Iterator[elf.Section]:
    """Yield the sections to search; libelf starts at index 1."""
    return (section for section in sections[1:] if section.type == elf.SHT_NOTE)
