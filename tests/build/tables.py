"""Page tables written by hand, in every paging mode."""

from __future__ import annotations

from pvh.abi import x86
from pvh.build.cpu_state import CpuState, SegmentRegister
from pvh.build.ram import GuestRam

LONG5, LONG, PAE, LEGACY = (48, 39, 30, 21, 12), (39, 30, 21, 12), (30, 21, 12), (22, 12)
PRESENT_WRITABLE, LARGE = 3, 1 << 7
CODE32 = SegmentRegister(0x08, 0, 0xFFFFFFFF, 0xC9B)
CODE64 = SegmentRegister(0x10, 0, 0xFFFFFFFF, 0xA9B)


class Tables:
    """Page tables of one mode in guest RAM, which take pages from `at` on."""

    def __init__(self, ram: GuestRam, mode: tuple[int, ...], at: int = 0x10000) -> None:
        self.ram, self.mode = ram, mode
        self.top, self._free = at, at + x86.PAGE_SIZE
        self.entry = 4 if mode == LEGACY else 8

    def map(self, linear: int, gpa: int, shift: int = 12) -> None:
        """Map one page of 1 << shift bytes."""
        table = self.top
        for level in self.mode:
            index_bits = 2 if self.mode == PAE and level == 30 else 9 if self.entry == 8 else 10
            at = table + (linear >> level & (1 << index_bits) - 1) * self.entry
            if level == shift:
                self.store(at, gpa | PRESENT_WRITABLE | (LARGE if shift > 12 else 0))
                return
            found = int.from_bytes(self.ram.read(at, self.entry) or b"", "little")
            if not found:
                found, self._free = self._free | PRESENT_WRITABLE, self._free + x86.PAGE_SIZE
                # A PDPTE of PAE has no writable bit: SDM vol. 3, table 4-8.
                self.store(at, found & ~2 if self.mode == PAE and level == 30 else found)
            table = found & ~0xFFF

    def store(self, at: int, entry: int) -> None:
        """Write a raw entry."""
        assert self.ram.write(at, entry.to_bytes(self.entry, "little"))

    def cpu(self, rip: int = 0, rsp: int = 0) -> CpuState:
        """Return a processor that uses the tables."""
        long = self.mode in (LONG, LONG5)
        cr4 = x86.CR4_PSE if self.mode == LEGACY else x86.CR4_PAE
        cr4 |= x86.CR4_LA57 if self.mode == LONG5 else 0
        return CpuState(
            gprs=(*range(0x100, 0x104), rsp, *range(0x105, 0x110)),
            rip=rip,
            cs=CODE64 if long else CODE32,
            cr0=x86.CR0_PE | x86.CR0_ET | x86.CR0_PG,
            cr3=self.top,
            cr4=cr4,
            efer=x86.EFER_LME | x86.EFER_LMA if long else 0,
        )
