"""Names for addresses inside a kernel, from its ELF symbol table (ELF specification, "Symbol Table").

Only a diagnosis asks, so nothing is read before. The table's size is the file's claim: what is read of it is bounded
by the file and by MOST_SYMBOLS; names are read one by one as they are asked for.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from typing import NamedTuple

from pvh.errors import NotAKernel
from pvh.kernel import elf
from pvh.kernel.record import Kernel, Segment
from pvh.kernel.source import Source
from pvh.record import dataclass

MOST_SYMBOLS = 1 << 20  # Linux with everything built in has a quarter of it
LONGEST_NAME = 128

# name, info, other, shndx, value, size; ELF32 has value and size first
_SYMBOL = {64: struct.Struct("<IBBHQQ"), 32: struct.Struct("<IIIBBH")}
_SHN_UNDEF, _SHN_LORESERVE = 0, 0xFF00
_STT_FUNC, _STT_SECTION, _STT_FILE = 2, 3, 4


@dataclass(frozen=True, slots=True)
class Place:
    """An address as a symbol, the offset from its start, and its size (0: not known), in bytes."""

    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.name}+{self.offset:#x}" + (f"/{self.size:#x}" if self.size else "")


class _Row(NamedTuple):
    """A symbol of the table, by value; of several with one value the last is the best name."""

    value: int
    rank: int
    size: int
    name: int


class Symbols:
    """The symbols of a kernel; none when its file has no table, or can no longer be read."""

    def __init__(self, kernel: Kernel) -> None:
        self._source: Source = kernel.source
        self._rows: list[_Row] = []
        self._names = range(0)
        try:
            self._load()
        except (NotAKernel, OSError):  # it was read before, so it has changed since
            return
        self._rows.sort()

    def _load(self) -> None:
        header = elf.read_header(self._source)
        sections = elf.read_sections(self._source, header)
        table = next((section for section in sections if section.type == elf.SHT_SYMTAB), None)
        if table is None or table.link >= len(sections):
            return
        strings = sections[table.link]
        self._names = range(strings.offset, strings.offset + strings.size)
        layout = _SYMBOL[header.bits]
        data = self._source.read(table.offset, min(table.size, MOST_SYMBOLS * layout.size))
        for fields in layout.iter_unpack(data[: len(data) // layout.size * layout.size]):
            if header.bits == 64:
                name, info, _, section, value, size = fields
            else:
                name, value, size, info, _, section = fields
            kind = info & 15
            if name and _SHN_UNDEF < section < _SHN_LORESERVE and kind not in (_STT_SECTION, _STT_FILE):
                is_global = info >> 4 == 1
                self._rows.append(_Row(value, 2 * (kind == _STT_FUNC) + is_global, size, name))

    def at(self, vaddr: int, segment: Segment) -> Place | None:
        """Return the last symbol at or before a virtual address, if it lies in that segment too."""
        index = bisect_right(self._rows, vaddr, key=lambda row: row.value) - 1
        if index < 0 or self._rows[index].value < segment.vaddr:
            return None
        row = self._rows[index]
        return Place(self._name(row.name), vaddr - row.value, row.size)

    def _name(self, offset: int) -> str:
        """Return a name, cut at LONGEST_NAME bytes, with what no terminal should get replaced."""
        if offset >= len(self._names):
            return "?"
        try:
            data = self._source.read(self._names[offset], LONGEST_NAME)
        except OSError:
            return "?"
        text = data.split(b"\0")[0].decode("utf-8", "replace")
        return "".join(char if char.isprintable() else "?" for char in text)
