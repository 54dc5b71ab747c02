"""What memory holds at entry: which bytes were loaded, and of which clause those are that were not.

start_info and all it leads to is read from guest memory, so that it does not matter who put it where.
"""

from __future__ import annotations

import struct

from pvh.abi import start_info as abi
from pvh.conformance.monitor import origins as o
from pvh.conformance.monitor.shadow import Stretch
from pvh.hints import TYPE_CHECKING
from pvh.record import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvh.build.image import Image
    from pvh.build.ram import GuestRam

_V0_SIZE, _V1_SIZE, _DRAFT_SIZE = struct.calcsize(abi.V0), struct.calcsize(abi.V1), struct.calcsize(abi.DRAFT_C)
_MODULE_SIZE, _ENTRY_SIZE = struct.calcsize(abi.MODULE), struct.calcsize(abi.MEMMAP_ENTRY)
Field = tuple[int, int]  # where a field is, and how many bytes it has
_BEHIND = 256  # bytes behind a structure that count as read by mistake for more of it
_MOST = 4096  # modules, entries: a profile's, so it is a bound against nonsense only
_LONGEST = 1 << 20  # of a command line
# Below 1 MiB: where a null pointer leads, BIOS data area, EBDA, VGA memory and option ROMs, BIOS.
_LEGACY = (
    (0, 0x1000, o.ZERO_PAGE),
    (0x400, 0x500, o.LEGACY),
    (0x80000, 0xE0000, o.LEGACY),
    (0xE0000, 0x100000, o.BIOS),
)


@dataclass(frozen=True, slots=True)
class Guarded:
    """Something that start_info leads to: [start, end), and where the pointer to it is (size 0: EBX has it)."""

    name: str
    start: int
    end: int
    pointer: int
    pointer_size: int


@dataclass(frozen=True, slots=True)
class EntryMemory:
    """stretches for the shadow; what the kernel may not overwrite before it has read the pointer to it; its fields."""

    stretches: tuple[Stretch, ...]
    guarded: tuple[Guarded, ...]
    fields: tuple[Guarded, ...] = ()


def entry_memory(image: Image, loaded: tuple[tuple[int, int], ...] = ()) -> EntryMemory:
    """Describe guest memory before the first instruction; loaded is (gpa, size) of what else a profile put there."""
    stretches = [Stretch(block.gpa, block.end, o.RAM) for block in image.ram.blocks]
    stretches += [Stretch(*row) for row in _LEGACY if image.ram.block(row[0], 1)]
    kept = ("kernel", "acpi", "special")
    given = [Stretch(piece.start, piece.end) for piece in image.plan.ranges if piece.kind in kept]
    given += [Stretch(start, start + size) for start, size in loaded]
    paddr = image.entry.gprs[3] & 0xFFFFFFFF
    walk = _Walk(image.ram)
    if image.plan.options.abi == "draft-c":
        walk.draft_c(paddr)
    else:
        walk.start_info(paddr)
    stretches += [*walk.behind, *given, *walk.there, *walk.nulls]
    return EntryMemory(tuple(stretches), tuple(walk.guarded), tuple(walk.fields))


class _Walk:
    """start_info, followed."""

    def __init__(self, ram: GuestRam) -> None:
        self._ram = ram
        self.there: list[Stretch] = []
        self.behind: list[Stretch] = []
        self.nulls: list[Stretch] = []
        self.guarded: list[Guarded] = []
        self.fields: list[Guarded] = []

    def draft_c(self, paddr: int) -> None:
        """Follow the structure of Draft C: addresses have 4 bytes, and there is no version, RSDP or memory map."""
        head = self._read(paddr, _DRAFT_SIZE)
        if head is None:
            return
        _, _, cmdline, count, modlist = struct.unpack(abi.DRAFT_C, head)
        self._place("start_info", paddr, _DRAFT_SIZE, paddr, 0)
        self._behind(paddr + _DRAFT_SIZE, o.BEHIND_START_INFO)
        self._string("cmdline", cmdline, (paddr + 8, 4), o.NULL_CMDLINE)
        for index, start, size, entry, _ in self._modules(abi.DRAFT_C_MODULE, modlist, count, (paddr + 16, 4)):
            self._place(f"module {index}", start, size, entry, 4)

    def start_info(self, paddr: int) -> None:
        """Follow hvm_start_info."""
        head = self._read(paddr, _V0_SIZE)
        if head is None:
            return
        _, version, _, count, modlist, cmdline, rsdp = struct.unpack(abi.V0, head)
        size = _V0_SIZE if version == 0 else _V1_SIZE
        self._place("start_info", paddr, size, paddr, 0)
        if version == 0:
            self._behind(paddr + _V0_SIZE, o.BEHIND_V0, _V1_SIZE - _V0_SIZE)
        self._behind(paddr + _V1_SIZE, o.FUTURE if version > 1 else o.BEHIND_START_INFO)
        self._string("cmdline", cmdline, (paddr + 24, 8), o.NULL_CMDLINE)
        self.fields.append(Guarded("rsdp_paddr", paddr + 32, paddr + 40, paddr, 0))
        if not rsdp:
            self._null((paddr + 32, 8), o.NULL_RSDP)
        for index, start, size, entry, line in self._modules(abi.MODULE, modlist, count, (paddr + 16, 8)):
            self._place(f"module {index}", start, size, entry, 8)
            self._string(f"the command line of module {index}", line, (entry + 16, 8), o.NULL_MODULE_CMDLINE)
        if version:
            self._memmap(paddr)

    def _read(self, gpa: int, size: int) -> bytes | None:
        block = self._ram.block(gpa, size)
        return bytes(block.view[gpa - block.gpa :][:size]) if block else None

    def _place(self, name: str, start: int, size: int, pointer: int, pointer_size: int) -> None:
        if self._ram.block(start, size):  # what lies elsewhere cannot be overwritten, and its size may be nonsense
            self.there.append(Stretch(start, start + size))
            self.guarded.append(Guarded(name, start, start + size, pointer, pointer_size))

    def _behind(self, start: int, origin: int, size: int = _BEHIND) -> None:
        self.behind.append(Stretch(start, start + size, origin))

    def _null(self, field: Field, origin: int) -> None:
        self.nulls.append(Stretch(field[0], sum(field), origin, defined=True))

    def _string(self, name: str, start: int, pointer: Field, null: int) -> None:
        if not start:
            self._null(pointer, null)
            return
        block = self._ram.block(start, 1)
        if block is None:
            return
        text = bytes(block.view[start - block.gpa :][:_LONGEST])
        size = text.find(b"\0") + 1 or len(text)
        self._place(name, start, size, *pointer)
        self._behind(start + size, o.BEHIND_CMDLINE)

    def _modules(self, form: str, modlist: int, count: int, pointer: Field) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield each module: its number, where it is, its size, where the list has it, its command line or 0."""
        if not modlist:
            self._null(pointer, o.NULL_MODLIST)
            return
        if not count:
            self._behind(modlist, o.BEHIND_MODLIST)
            return
        row = struct.calcsize(form)
        data = self._read(modlist, min(count, _MOST) * row)
        if data is None:
            return
        self._place("the module list", modlist, len(data), *pointer)
        self._behind(modlist + len(data), o.BEHIND_MODLIST)
        for index, (start, size, *cmdline) in enumerate(struct.iter_unpack(form, data)):
            yield index, start, size, modlist + index * row, cmdline[0] if cmdline else 0

    def _memmap(self, paddr: int) -> None:
        data = self._read(paddr + _V0_SIZE, 12)
        if data is None:
            return
        memmap, count = struct.unpack("<QI", data)
        if not memmap:
            self._null((paddr + _V0_SIZE, 8), o.NULL_MEMMAP)
        elif not count:
            self._behind(memmap, o.EMPTY_MEMMAP)
        elif self._read(memmap, size := min(count, _MOST) * _ENTRY_SIZE) is not None:
            self._place("the memory map", memmap, size, paddr + _V0_SIZE, 8)
            self._behind(memmap + size, o.BEHIND_MEMMAP)


def pages(guarded: tuple[Guarded, ...]) -> Iterator[int]:
    """Yield the numbers of the pages on which something guarded, or the pointer to it, lies."""
    for item in guarded:
        yield from range(item.start >> 12, (max(item.end - 1, item.start) >> 12) + 1)
        yield item.pointer >> 12
