"""Guest memory by linear address, through the page tables of one processor.

Follows Intel SDM vol. 3, chapter 4, for no paging, 32-bit, PAE, 4-level and 5-level paging. Accessed and dirty bits are
left alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from pvh.abi import x86
from pvh.build.cpu_state import CpuState
from pvh.build.ram import GuestRam

_PRESENT = 1 << 0
_WRITABLE = 1 << 1
_LARGE = 1 << 7
_FRAME = 0x000FFFFFFFFFF000


class LinearFault(Exception):
    """A linear address that does not lead to memory; address is the first such byte."""

    def __init__(self, address: int) -> None:
        super().__init__(f"no guest memory behind linear address {address:#x}")
        self.address = address


class LinearMemory:
    """Reads and writes of linear ranges as the processor of `state` would translate them at CPL 0."""

    def __init__(self, ram: GuestRam, state: CpuState) -> None:
        self._ram = ram
        self._state = state

    def read(self, address: int, size: int) -> bytes:
        """Return size bytes at a linear address; raises LinearFault. The caller bounds size."""
        parts: list[bytes] = []
        for gpa, count in self._pieces(address, size, write=False):
            part = self._ram.read(gpa, count)
            if part is None:
                raise LinearFault(address + sum(map(len, parts)))
            parts.append(part)
        return b"".join(parts)

    def write(self, address: int, data: bytes) -> None:
        """Store data at a linear address; raises LinearFault, with the pages before the fault written (as Xen)."""
        done = 0
        for gpa, count in self._pieces(address, len(data), write=True):
            if not self._ram.write(gpa, data[done : done + count]):
                raise LinearFault(address + done)
            done += count

    def translate(self, address: int, *, write: bool = False) -> int | None:
        """Return the guest-physical address behind a linear address, or None."""
        if not self._state.cr0 & x86.CR0_PG:
            return address & 0xFFFFFFFF
        if self._state.efer & x86.EFER_LMA:
            return self._walk_long(address, write=write)
        address &= 0xFFFFFFFF
        if self._state.cr4 & x86.CR4_PAE:
            return self._walk_pae(address, write=write)
        return self._walk_legacy(address, write=write)

    def _pieces(self, address: int, size: int, *, write: bool) -> Iterator[tuple[int, int]]:
        mask = (1 << 64) - 1 if self._state.bits == 64 else (1 << 32) - 1
        while size > 0:
            address &= mask
            count = min(size, x86.PAGE_SIZE - address % x86.PAGE_SIZE)
            gpa = self.translate(address, write=write)
            if gpa is None:
                raise LinearFault(address)
            yield gpa, count
            address += count
            size -= count

    def _entry(self, gpa: int, size: int) -> int:
        raw = self._ram.read(gpa, size)
        return int.from_bytes(raw, "little") if raw else 0

    def _usable(self, entry: int, *, write: bool) -> bool:
        """Present, and writable where supervisor writes are checked (CR0.WP)."""
        if not entry & _PRESENT:
            return False
        return bool(entry & _WRITABLE) or not write or not self._state.cr0 & x86.CR0_WP

    def _descend(self, table: int, address: int, shift: int, *, write: bool) -> int | None:
        """Walk 8-byte tables from the level whose index starts at bit `shift` down to a page."""
        while True:
            entry = self._entry(table + (address >> shift & 511) * 8, 8)
            if not self._usable(entry, write=write):
                return None
            if shift == x86.PAGE_SHIFT or (entry & _LARGE and shift <= 30):
                offset = (1 << shift) - 1
                return (entry & _FRAME & ~offset) | (address & offset)
            table = entry & _FRAME
            shift -= 9

    def _walk_long(self, address: int, *, write: bool) -> int | None:
        top = 48 if self._state.cr4 & x86.CR4_LA57 else 39
        if address >> top + 8 not in (0, (1 << 56 - top) - 1):
            return None  # not canonical
        return self._descend(self._state.cr3 & _FRAME, address, top, write=write)

    def _walk_pae(self, address: int, *, write: bool) -> int | None:
        pointer = self._entry((self._state.cr3 & 0xFFFFFFE0) + (address >> 30) * 8, 8)
        if not pointer & _PRESENT:
            return None
        return self._descend(pointer & _FRAME, address, 21, write=write)

    def _walk_legacy(self, address: int, *, write: bool) -> int | None:
        directory = self._entry((self._state.cr3 & 0xFFFFF000) + (address >> 22) * 4, 4)
        if not self._usable(directory, write=write):
            return None
        if directory & _LARGE and self._state.cr4 & x86.CR4_PSE:
            high = (directory >> 13 & 0xFF) << 32  # PSE-36
            return high | (directory & 0xFFC00000) | (address & 0x3FFFFF)
        entry = self._entry((directory & 0xFFFFF000) + (address >> 12 & 1023) * 4, 4)
        if not self._usable(entry, write=write):
            return None
        return (entry & 0xFFFFF000) | (address & 0xFFF)
