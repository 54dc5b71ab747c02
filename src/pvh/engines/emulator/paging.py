"""Guest memory by linear address, as the processor's own (implicit supervisor) accesses see it.

The library walks page tables for the guest's instructions; what the engine does for the processor - descriptor tables,
TSS, stack frames of exceptions, instruction bytes - is walked here (Intel SDM vol. 3, 4.3 to 4.7).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pvh.abi import x86
from pvh.build.ram import GuestRam
from pvh.engines.emulator.registers import Registers

_QUAD = struct.Struct("<Q")
_PRESENT, _WRITABLE, _USER, _ACCESSED, _DIRTY, _LARGE = 1, 2, 4, 0x20, 0x40, 0x80
_ERROR_P, _ERROR_W, _ERROR_RSVD = 1, 2, 8
_FRAME = 0x000F_FFFF_FFFF_F000
_NX = 1 << 63
_UNCANONICAL = 0xFFFF << 48
# MAXPHYADDR is 40 in this engine.
_RESERVED_HIGH = _FRAME & ~((1 << 40) - 1)
_PSE36_RESERVED = 1 << 21


class GuestFault(Exception):
    """An access or a delivery met an architectural exception."""

    def __init__(self, vector: int, error: int | None, cr2: int | None = None) -> None:
        super().__init__(vector, error, cr2)
        self.vector = vector
        self.error = error
        self.cr2 = cr2


class LinearMemory:
    """Reads and writes at linear addresses. Where there is no RAM, reads give ones and writes are dropped."""

    def __init__(self, ram: GuestRam, registers: Registers) -> None:
        self._ram = ram
        self._registers = registers
        block = ram.blocks[0]
        self._lowest = block.view if block.gpa == 0 else memoryview(b"")
        self._fetching = False

    def read(self, address: int, size: int) -> bytes:
        """Return bytes; raise GuestFault (#PF, or #GP for an address that is not canonical)."""
        if address % x86.PAGE_SIZE + size <= x86.PAGE_SIZE:
            return self._ram.read(self.translate(address, write=False), size) or b"\xff" * size
        pieces = [
            self._ram.read(gpa, count) or b"\xff" * count for gpa, count in self._pieces(address, size, write=False)
        ]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_int(self, address: int, size: int) -> int:
        """Return a little-endian integer."""
        return int.from_bytes(self.read(address, size), "little")

    def write(self, address: int, data: bytes) -> None:
        """Store bytes; raise GuestFault before the first is stored."""
        if address % x86.PAGE_SIZE + len(data) <= x86.PAGE_SIZE:
            self._ram.write(self.translate(address, write=True), data)
            return
        at = 0
        for gpa, count in list(self._pieces(address, len(data), write=True)):
            self._ram.write(gpa, data[at : at + count])
            at += count

    def peek(self, address: int, size: int) -> bytes:
        """Return the bytes of an instruction at an address, up to size, as far as they can be fetched."""
        room = x86.PAGE_SIZE - address % x86.PAGE_SIZE
        data = b""
        self._fetching = True
        try:
            data = self.read(address, min(size, room))
            if size > room:
                data += self.read(address + room, size - room)
        except GuestFault:
            pass  # what is there is enough, or the processor could not have come here
        finally:
            self._fetching = False
        return data

    def _pieces(self, address: int, size: int, *, write: bool) -> Iterator[tuple[int, int]]:
        while size > 0:
            count = min(size, x86.PAGE_SIZE - address % x86.PAGE_SIZE)
            yield self.translate(address, write=write), count
            address += count
            size -= count

    def translate(self, address: int, *, write: bool) -> int:
        """Walk the page tables as a supervisor access, setting accessed and dirty bits; raise GuestFault."""
        registers = self._registers
        if registers.long_mode:
            address &= 2**64 - 1
            gpa = self._quick_walk(address, write=write)
            if gpa is not None:
                return gpa
            if (address + (1 << 47)) >> 48 & 0xFFFF:
                raise GuestFault(x86.GP, 0)
            return self._walk(address, 4, write=write)
        address &= 2**32 - 1
        if not registers.cr(0) & x86.CR0_PG:
            return address
        if registers.cr(4) & x86.CR4_PAE:
            return self._walk(address, 3, write=write)
        return self._walk_32(address, write=write)

    def _quick_walk(self, address: int, *, write: bool) -> int | None:
        """Walk four levels where nothing is unusual: an answer, or None for the thorough walk to decide."""
        cr3, cr4 = self._registers.cr3_cr4
        entry: int
        quad, view = _QUAD.unpack_from, self._lowest
        try:
            (top,) = quad(view, cr3 & _FRAME | address >> 36 & 0xFF8)
            (entry,) = quad(view, top & _FRAME | address >> 27 & 0xFF8)
            every, some, offset = top & entry, top | entry, 0x3FFFFFFF
            if not entry & _LARGE:
                (entry,) = quad(view, entry & _FRAME | address >> 18 & 0xFF8)
                every, some, offset = every & entry, some | entry, 0x1FFFFF
                if not entry & _LARGE:
                    (entry,) = quad(view, entry & _FRAME | address >> 9 & 0xFF8)
                    every, some, offset = every & entry, some | entry, 0xFFF
        except struct.error:
            return None
        wanted = _PRESENT | _ACCESSED | (_WRITABLE if write else 0)
        # A first write, an address that is not canonical, reserved bits, NX without EFER.NX, SMAP: for the other walk.
        if (
            every & wanted != wanted
            or (write and not entry & _DIRTY)
            or address + (1 << 47) & _UNCANONICAL
            or some & _RESERVED_HIGH
            or top & _LARGE
            or entry & offset & _FRAME & ~0x1FFF
            or (some & _NX and not self._registers.efer & x86.EFER_NX)
            or (every & _USER and cr4 & x86.CR4_SMAP)
        ):
            return None
        return entry & _FRAME & ~offset | address & offset

    def _entry(self, gpa: int, size: int) -> int:
        data = self._ram.read(gpa, size)
        return (1 << 8 * size) - 1 if data is None else int.from_bytes(data, "little")

    def _mark(self, gpa: int, entry: int, bits: int, size: int) -> None:
        if entry & bits != bits:
            self._ram.write(gpa, (entry | bits).to_bytes(size, "little"))

    def _walk(self, address: int, levels: int, *, write: bool) -> int:
        registers = self._registers
        reserved = _RESERVED_HIGH | (0 if registers.efer & x86.EFER_NX else _NX)
        table = registers.cr(3) & (_FRAME if levels == 4 else 0xFFFFFFE0)
        rights = _WRITABLE | _USER
        used: list[tuple[int, int]] = []
        for level in range(levels, 0, -1):
            index = address >> 12 + 9 * (level - 1) & (0x1FF if level < 3 or levels == 4 else 3)
            gpa = table + 8 * index
            entry = self._entry(gpa, 8)
            if not entry & _PRESENT:
                self._fault(address, 0, write=write)
            directory_pointer = level == 3 and levels == 3
            large = bool(entry & _LARGE) and level in {2, 3} and not directory_pointer
            shift = 12 + 9 * (level - 1) if large else 12
            bad = reserved | (0x0000_01E6 | _NX if directory_pointer else 0) | (_LARGE if level == 4 else 0)
            # Bit 12 of a large page's entry is PAT.
            bad |= (1 << shift) - 1 & ~0x1FFF if large else 0
            if entry & bad:
                self._fault(address, _ERROR_P | _ERROR_RSVD, write=write)
            if not directory_pointer:
                rights &= entry
                used.append((gpa, entry))
            if large or level == 1:
                self._check(address, rights, write=write)
                self._mark_all(used, 8, write=write)
                return entry & _FRAME & ~((1 << shift) - 1) | address & (1 << shift) - 1
            table = entry & _FRAME
        raise AssertionError("a walk ends at level 1")

    def _walk_32(self, address: int, *, write: bool) -> int:
        registers = self._registers
        gpa = (registers.cr(3) & 0xFFFFF000) + (address >> 20 & 0xFFC)
        entry = self._entry(gpa, 4)
        if not entry & _PRESENT:
            self._fault(address, 0, write=write)
        if entry & _LARGE and registers.cr(4) & x86.CR4_PSE:
            if entry & _PSE36_RESERVED:
                self._fault(address, _ERROR_P | _ERROR_RSVD, write=write)
            self._check(address, entry, write=write)
            self._mark_all([(gpa, entry)], 4, write=write)
            return entry & 0xFFC00000 | (entry >> 13 & 0xFF) << 32 | address & 0x3FFFFF
        used = [(gpa, entry)]
        gpa = (entry & 0xFFFFF000) + (address >> 10 & 0xFFC)
        leaf = self._entry(gpa, 4)
        if not leaf & _PRESENT:
            self._fault(address, 0, write=write)
        self._check(address, entry & leaf, write=write)
        self._mark_all([*used, (gpa, leaf)], 4, write=write)
        return leaf & 0xFFFFF000 | address & 0xFFF

    def _check(self, address: int, rights: int, *, write: bool) -> None:
        registers = self._registers
        if write and not rights & _WRITABLE and registers.cr(0) & x86.CR0_WP:
            self._fault(address, _ERROR_P, write=write)
        # SMAP has no override for implicit accesses, and does not concern fetches (SDM vol. 3, 4.6.1).
        if rights & _USER and registers.cr(4) & x86.CR4_SMAP and not self._fetching:
            self._fault(address, _ERROR_P, write=write)

    def _mark_all(self, used: list[tuple[int, int]], size: int, *, write: bool) -> None:
        for gpa, entry in used[:-1]:
            self._mark(gpa, entry, _ACCESSED, size)
        gpa, entry = used[-1]
        self._mark(gpa, entry, _ACCESSED | (_DIRTY if write else 0), size)

    def _fault(self, address: int, error: int, *, write: bool) -> None:
        raise GuestFault(x86.PF, error | (_ERROR_W if write else 0), address)
