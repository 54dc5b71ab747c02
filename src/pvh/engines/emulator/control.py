"""Writes of CR0, CR4 and the debug registers.

The library checks little, so reserved bits and forbidden combinations are refused here as hardware does (Intel SDM
vol. 3, 2.5, 4.1.2 and 17.2; vol. 2, MOV to control registers).
"""

from __future__ import annotations

from pvh.abi import x86
from pvh.engines.emulator.calibrate import HF_CS64
from pvh.engines.emulator.libunicorn import REG_CR0, REG_CR4, Handle
from pvh.engines.emulator.registers import CS, Registers

_CR0_WRITABLE = (
    x86.CR0_PE | x86.CR0_MP | x86.CR0_EM | x86.CR0_TS | x86.CR0_NE | x86.CR0_WP | x86.CR0_AM | x86.CR0_NW
    | x86.CR0_CD | x86.CR0_PG
)  # fmt: skip
_CR4_WRITABLE = (
    x86.CR4_VME | x86.CR4_PVI | x86.CR4_TSD | x86.CR4_DE | x86.CR4_PSE | x86.CR4_PAE | x86.CR4_MCE | x86.CR4_PGE
    | x86.CR4_PCE | x86.CR4_OSFXSR | x86.CR4_OSXMMEXCPT | x86.CR4_FSGSBASE | x86.CR4_SMEP | x86.CR4_SMAP
)  # fmt: skip
_DR6_WRITABLE, _DR6_FIXED = 0xE00F, 0xFFFF0FF0
_DR7_WRITABLE, _DR7_FIXED = 0xFFFF23FF, 0x400


class Refused(Exception):
    """The write is a #GP(0), or a #UD where ud says so."""

    def __init__(self, *, ud: bool = False) -> None:
        super().__init__(ud)
        self.ud = ud


def write_cr0(handle: Handle, registers: Registers, value: int) -> None:
    """Set CR0. Raises Refused."""
    high = value >> 32 and registers.bits == 64
    paging, protected = value & x86.CR0_PG, value & x86.CR0_PE
    if high or (paging and not protected) or (value & x86.CR0_NW and not value & x86.CR0_CD):
        raise Refused
    activates = paging and not registers.cr(0) & x86.CR0_PG and registers.efer & x86.EFER_LME
    if activates and (not registers.cr(4) & x86.CR4_PAE or registers.segment(CS).attributes & x86.AR_L):
        raise Refused
    if not paging and registers.hflags & HF_CS64:
        raise Refused
    handle.write(REG_CR0, value & _CR0_WRITABLE | x86.CR0_ET)


def write_cr4(handle: Handle, registers: Registers, value: int) -> None:
    """Set CR4. Raises Refused."""
    if value & ~_CR4_WRITABLE or (registers.long_mode and not value & x86.CR4_PAE):
        raise Refused
    handle.write(REG_CR4, value)


def write_dr(registers: Registers, index: int, value: int) -> None:
    """Set a debug register in the snapshot. Breakpoints are kept and never hit. Raises Refused."""
    if index in {4, 5}:
        if registers.cr(4) & x86.CR4_DE:
            raise Refused(ud=True)
        index += 2
    if index in {6, 7}:
        if value >> 32:
            raise Refused
        value = value & _DR6_WRITABLE | _DR6_FIXED if index == 6 else value & _DR7_WRITABLE | _DR7_FIXED
    registers.set_dr(index, value)
