"""CPUID as a Xen PVH guest sees it: the engine's leaves, APIC ids, and Xen's own (xen/arch/x86/cpuid.c)."""

from __future__ import annotations

from pvh.abi import cpuid as abi
from pvh.engines.engine import CpuidEntry, CpuidTable
from pvh.record import replace
from pvh.xen.clock import scale
from pvh.xen.version import MAJOR, MINOR

_HYPERVISOR = 1 << 31
_HTT = 1 << 28


def apic_id(vcpu: int) -> int:
    """Return a vCPU's local APIC id, as Xen gives them."""
    return 2 * vcpu


def with_apic_id(table: CpuidTable, vcpu: int, *, hypervisor: bool) -> CpuidTable:
    """Return an engine's leaves with this vCPU's APIC id in leaves 1 and 0xb, and leaf 1's hypervisor bit."""
    return tuple(_own(entry, apic_id(vcpu), hypervisor=hypervisor) for entry in table)


def _own(entry: CpuidEntry, apic: int, *, hypervisor: bool) -> CpuidEntry:
    if entry.leaf == 1:
        ecx = entry.ecx | _HYPERVISOR if hypervisor else entry.ecx & ~_HYPERVISOR
        return replace(entry, ebx=(entry.ebx & 0xFFFF) | (apic & 0xFF) << 24, ecx=ecx, edx=entry.edx & ~_HTT)
    if entry.leaf == 0xB:
        return replace(entry, edx=apic)
    return entry


def xen_leaves(vcpu: int, domid: int, tsc_khz: int) -> CpuidTable:
    """Return leaves 0x40000000 to 0x40000005 for a vCPU."""
    mul, shift = scale(tsc_khz)
    base = abi.BASE
    present = abi.HVM_IOMMU_MAPPINGS | abi.HVM_VCPU_ID_PRESENT | abi.HVM_DOMID_PRESENT | abi.HVM_UPCALL_VECTOR
    return (
        CpuidEntry(base, None, abi.MAX_LEAF, abi.SIGNATURE_EBX, abi.SIGNATURE_ECX, abi.SIGNATURE_EDX),
        CpuidEntry(base + 1, None, MAJOR << 16 | MINOR, 0, 0, 0),
        CpuidEntry(base + 2, None, 1, abi.MSR_HYPERCALL, 0, 0),
        CpuidEntry(base + 3, 0, abi.TSC_HOST_RELIABLE, abi.TSC_MODE_NEVER_EMULATE, tsc_khz, 0),
        CpuidEntry(base + 3, 1, 0, 0, mul, shift & 0xFFFFFFFF),
        CpuidEntry(base + 3, 2, tsc_khz, 0, 0, 0),
        CpuidEntry(base + 4, None, present, vcpu, domid, 0),
        CpuidEntry(base + 5, None, 0, 0, 0, 0),
    )


def bare_leaves(table: CpuidTable, tsc_khz: int) -> CpuidTable:
    """Return an engine's leaves with the TSC's frequency in 0x15 and 0x16, for guests without Xen's clock.

    Leaf 0x15: TSC = crystal * EBX / EAX, crystal in Hz in ECX. Leaf 0x16: base, maximum and bus frequency in MHz.
    """
    crystal = 25_000_000
    numerator, denominator = tsc_khz * 1000, crystal
    while numerator >> 32:
        numerator, denominator = numerator >> 1, denominator >> 1
    mhz = tsc_khz // 1000
    kept = tuple(replace(e, eax=max(e.eax, 0x16)) if e.leaf == 0 else e for e in table if e.leaf not in (0x15, 0x16))
    return (
        *kept,
        CpuidEntry(0x15, None, denominator, numerator, crystal, 0),
        CpuidEntry(0x16, None, mhz, mhz, 100, 0),
    )
