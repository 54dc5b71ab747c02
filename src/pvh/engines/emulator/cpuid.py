"""CPUID: what the emulated processor executes faithfully, and the lookup that answers the guest.

The library models QEMU 5.0's TCG with the EPYC model. What it lacks or does wrong is left out here: AVX and later,
XSAVE, PCID, INVPCID, x2APIC, MONITOR, SVM, RDPMC, 1 GiB limits apart. tests/engines/emulator/test_cpuid.py executes an
instruction of each feature offered. Bit names: Intel SDM vol. 2A CPUID; AMD APM vol. 3 appendix E.
"""

from __future__ import annotations

import struct

from pvh.engines.engine import CpuidEntry, CpuidTable
from pvh.record import replace

_VENDOR = b"AuthenticAMD"
_BRAND = b"pvh emulated processor".ljust(48, b"\0")
# Family 17h, model 1, stepping 2: the library's model, so that quirks software derives from it hold.
_SIGNATURE = 0x00800F12
_CLFLUSH_LINE = 8 << 8


def _bits(*positions: int) -> int:
    return sum(1 << position for position in positions)


# fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2
_LEAF_1_EDX = _bits(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26)
# sse3 pclmulqdq ssse3 cx16 sse4.1 sse4.2 movbe popcnt aes rdrand hypervisor
_LEAF_1_ECX = _bits(0, 1, 9, 13, 19, 20, 22, 23, 25, 30, 31)
# fsgsbase bmi1 smep bmi2 rdseed adx smap clflushopt
_LEAF_7_EBX = _bits(0, 3, 7, 8, 18, 19, 20, 23)
_RDRAND, _RDSEED = _bits(30), _bits(18)  # of these two
# arat: the local APIC timer never stops
_LEAF_6_EAX = _bits(2)
# as leaf 1, and: syscall nx mmxext fxsr_opt page1gb rdtscp lm
_EXTENDED_EDX = _bits(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 20, 22, 23, 24, 26, 27, 29)
# lahf_lm abm sse4a 3dnowprefetch
_EXTENDED_ECX = _bits(0, 5, 6, 8)
# invariant TSC
_POWER_EDX = _bits(8)
# physical 40 bits, linear 48
_ADDRESS_SIZES = 0x3028


def faithful_table() -> CpuidTable:
    """Return the leaves the engine executes faithfully, for vCPU 0 and before a personality adds its own."""
    a, d, c = struct.unpack("<III", _VENDOR)
    brand = struct.unpack("<12I", _BRAND)
    names = tuple(CpuidEntry(0x80000002 + index, None, *brand[4 * index : 4 * index + 4]) for index in range(3))
    return (
        CpuidEntry(0, None, 7, a, c, d),
        CpuidEntry(1, None, _SIGNATURE, _CLFLUSH_LINE | 1 << 16, _LEAF_1_ECX, _LEAF_1_EDX),
        CpuidEntry(6, None, _LEAF_6_EAX, 0, 0, 0),
        CpuidEntry(7, 0, 0, _LEAF_7_EBX, 0, 0),
        CpuidEntry(0x80000000, None, 0x80000008, a, c, d),
        CpuidEntry(0x80000001, None, _SIGNATURE, 0, _EXTENDED_ECX, _EXTENDED_EDX),
        *names,
        CpuidEntry(0x80000007, None, 0, 0, 0, _POWER_EDX),
        CpuidEntry(0x80000008, None, _ADDRESS_SIZES, 0, 0, 0),
    )


def without_random(table: CpuidTable) -> CpuidTable:
    """Return a table that does not offer RDRAND and RDSEED, whose numbers no two runs have in common."""
    hidden = {1: ("ecx", _RDRAND), 7: ("ebx", _RDSEED)}
    return tuple(
        replace(entry, **{hidden[entry.leaf][0]: getattr(entry, hidden[entry.leaf][0]) & ~hidden[entry.leaf][1]})
        if entry.leaf in hidden
        else entry
        for entry in table
    )


class CpuidLookup:
    """A table made ready for lookups."""

    def __init__(self, table: CpuidTable) -> None:
        self._answers = {(entry.leaf, entry.subleaf): (entry.eax, entry.ebx, entry.ecx, entry.edx) for entry in table}

    def answer(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """Return EAX, EBX, ECX, EDX: the exact subleaf, else a leaf that has none, else zeros."""
        answers = self._answers
        return answers.get((leaf, subleaf)) or answers.get((leaf, None)) or (0, 0, 0, 0)
