"""The deliberately wrong kernels of tests/guests/wrong_*.S, and their twins."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pvh.conformance.clauses import CLAUSES
from pvh.kernel import elf
from pvh.kernel.read import read_kernel

GUESTS = Path(__file__).resolve().parent.parent / "guests"
FILES = ("wrong_processor.elf", "wrong_memory.elf", "wrong_start_info.elf", "wrong_reloc.elf")
_CLAUSE = {clause.id.replace(".", "_").replace("-", "_"): clause.id for clause in CLAUSES}
_SYMBOL = struct.Struct("<IBBHQQ")


@dataclass(frozen=True)
class Case:
    """A kernel: the clause it is about, its name (`entry_eax`, `idt__sti`), where it begins and breaks the clause.

    culprit is None for a twin, which keeps the clause.
    """

    clause: str
    name: str
    file: str
    entry: int
    culprit: int | None

    def write(self, folder: Path) -> Path:
        """Make the kernel: the file's, with PHYS32_ENTRY pointing to this case."""
        data = bytearray((GUESTS / self.file).read_bytes())
        note = struct.pack("<III", 4, 4, 18) + b"Xen\0"
        at = data.index(note) + len(note)
        struct.pack_into("<I", data, at, self.entry)
        path = folder / f"{'wrong' if self.culprit else 'right'}_{self.name}.elf"
        path.write_bytes(data)
        return path


@cache
def cases() -> tuple[Case, ...]:
    """Return every kernel, wrong and right."""
    return tuple(case for file in FILES for case in _cases(file))


def _cases(file: str) -> list[Case]:
    symbols = _symbols(GUESTS / file)
    found: list[Case] = []
    for symbol, address in symbols.items():
        side, _, name = symbol.partition("_")
        if side in ("wrong", "right"):
            clause = _CLAUSE[name.partition("__")[0]]
            found.append(Case(clause, name, file, address, symbols[f"culprit_{name}"] if side == "wrong" else None))
    return found


def _symbols(path: Path) -> dict[str, int]:
    """Return the global symbols of an ELF64."""
    source = read_kernel(str(path)).source
    sections = elf.read_sections(source, elf.read_header(source))
    table = next(section for section in sections if section.type == elf.SHT_SYMTAB)
    strings = sections[table.link]
    names = source.read(strings.offset, strings.size)
    rows = _SYMBOL.iter_unpack(source.read(table.offset, table.size))
    return {names[row[0] :].split(b"\0")[0].decode(): row[4] for row in rows if row[1] >> 4}
