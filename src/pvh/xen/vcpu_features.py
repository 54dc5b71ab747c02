"""The bits of CR4 and EFER that a vCPU may have, by its CPUID (xen/arch/x86/hvm/hvm.c)."""

from __future__ import annotations

from pvh.abi import x86
from pvh.engines.engine import CpuidTable
from pvh.hints import Literal

# Control bits, and the CPUID bit that admits them: leaf, subleaf, register, bit. Several rows: any of them does.
Row = tuple[int, int, int, Literal["eax", "ebx", "ecx", "edx"], int]

# hvm_cr4_guest_valid_bits. VMXE is no row: it takes nested virtualisation, which we do not offer.
CR4: tuple[Row, ...] = (
    (x86.CR4_VME | x86.CR4_PVI, 1, 0, "edx", 1),
    (x86.CR4_TSD, 1, 0, "edx", 4),
    (x86.CR4_DE, 1, 0, "edx", 2),
    (x86.CR4_PSE, 1, 0, "edx", 3),
    (x86.CR4_PAE, 1, 0, "edx", 6),
    (x86.CR4_MCE, 1, 0, "edx", 7),  # MCE
    (x86.CR4_MCE, 1, 0, "edx", 14),  # or MCA
    (x86.CR4_PGE, 1, 0, "edx", 13),
    (x86.CR4_OSFXSR, 1, 0, "edx", 24),
    (x86.CR4_OSXMMEXCPT, 1, 0, "edx", 25),
    (x86.CR4_UMIP, 7, 0, "ecx", 2),
    (x86.CR4_FSGSBASE, 7, 0, "ebx", 0),
    (x86.CR4_PCIDE, 1, 0, "ecx", 17),
    (x86.CR4_OSXSAVE, 1, 0, "ecx", 26),
    (x86.CR4_SMEP, 7, 0, "ebx", 7),
    (x86.CR4_SMAP, 7, 0, "ebx", 20),
    (x86.CR4_PKE, 7, 0, "ecx", 3),
    (x86.CR4_CET, 7, 0, "ecx", 7),  # shadow stacks
    (x86.CR4_CET, 7, 0, "edx", 20),  # or indirect branch tracking
    (x86.CR4_PKS, 7, 0, "ecx", 31),
    (x86.CR4_LASS, 7, 1, "eax", 6),
)

# hvm_efer_valid. SVME is no row, for the reason that VMXE is none.
EFER: tuple[Row, ...] = (
    (x86.EFER_SCE, 0x80000001, 0, "edx", 11),
    (x86.EFER_LME | x86.EFER_LMA, 0x80000001, 0, "edx", 29),
    (x86.EFER_NX, 0x80000001, 0, "edx", 20),
    (x86.EFER_FFXSE, 0x80000001, 0, "edx", 25),
    (x86.EFER_AIBRSE, 0x80000021, 0, "eax", 8),
)


def cr4_bits(table: CpuidTable) -> int:
    """Return the bits of CR4 a guest may set. Performance counters' PCE needs no feature."""
    return _admitted(CR4, table) | x86.CR4_PCE


def efer_bits(table: CpuidTable) -> int:
    """Return the bits of EFER a guest may set."""
    return _admitted(EFER, table)


def physical_bits(table: CpuidTable) -> int:
    """Return MAXPHYADDR; 36 where no leaf says (Intel SDM vol. 3, 4.1.4)."""
    leaf = 0x80000008
    return next((entry.eax & 0xFF for entry in table if entry.leaf == leaf), 36)


def _admitted(rows: tuple[Row, ...], table: CpuidTable) -> int:
    bits = 0
    for control, leaf, subleaf, register, bit in rows:
        if any(e.leaf == leaf and e.subleaf in (None, subleaf) and getattr(e, register) >> bit & 1 for e in table):
            bits |= control
    return bits
