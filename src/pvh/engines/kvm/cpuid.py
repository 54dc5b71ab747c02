"""CPUID by KVM: what it supports on this host, less what belongs to a personality or fails here; and the way back."""

from __future__ import annotations

import errno
from struct import Struct

from pvh.engines.engine import CpuidEntry, CpuidTable
from pvh.engines.kvm import ioctl as kvm
from pvh.errors import EngineError
from pvh.record import replace

_HEADER = Struct("<II")  # nent, padding
_ENTRY = Struct("<7I12x")  # function, index, flags, eax, ebx, ecx, edx
_SIGNIFICANT_INDEX = 1

_MOST = 4096  # far above KVM_MAX_CPUID_ENTRIES (256)

# Leaves that say which processor this is among others: the personality knows, KVM reports the host's.
_TOPOLOGY = (0xB, 0x1F, 0x8000001E, 0x80000026)

_VMX, _SVM = 1 << 5, 1 << 2
_SVM_FEATURES = 0x8000000A

_CX16 = 1 << 13
_TSC_DEADLINE = 1 << 24
# What is unusable without XSAVE (Intel SDM vol. 1, chapter 13). Leaf 1 ECX: FMA, XSAVE, OSXSAVE, AVX, F16C.
# Leaf 7 EBX: AVX2, AVX512*; ECX: AVX512*, PKU, OSPKE, VAES, VPCLMULQDQ; EDX: AVX512*, AMX.
_XSAVE_1_ECX = 1 << 12 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 29
_XSAVE_EXTENDED_ECX = 1 << 11 | 1 << 15 | 1 << 16  # leaf 0x80000001: XOP, LWP, FMA4
_XSAVE_7 = (0xDC230020, 0x5E5A, 0x03C0010C)


def supported(dev: int) -> CpuidTable:
    """Return the leaves this KVM can execute, without its own hypervisor leaves, VMX, SVM and the host's topology.

    Leaf 1 has APIC id 0 and one logical processor. Raises EngineError.
    """
    leaves = [_neutral(entry) for entry in _ask(dev) if not _foreign(entry.leaf)]
    if kvm.call(dev, kvm.CHECK_EXTENSION, kvm.CAP_TSC_DEADLINE_TIMER) > 0:
        # Works with an in-kernel APIC, but this ioctl does not report it (Documentation/virt/kvm/api.rst, 4.46).
        leaves = [replace(e, ecx=e.ecx | _TSC_DEADLINE) if e.leaf == 1 else e for e in leaves]
    return tuple(leaves)


def without(table: CpuidTable, failing: frozenset[str]) -> CpuidTable:
    """Return the table less the features that the probe found failing (names of pvh.engines.kvm.probe)."""
    leaves = list(table)
    if "cmpxchg16b" in failing:
        leaves = [replace(e, ecx=e.ecx & ~_CX16) if e.leaf == 1 else e for e in leaves]
    if "xrstor" in failing:
        leaves = [_no_xsave(e) for e in leaves if e.leaf != 0xD]
    return tuple(leaves)


def pack(table: CpuidTable) -> bytearray:
    """Return struct kvm_cpuid2 (a bytearray: fcntl copies bytes, and no more than 1024 of them)."""
    packed = (
        _ENTRY.pack(e.leaf, e.subleaf or 0, 0 if e.subleaf is None else _SIGNIFICANT_INDEX, e.eax, e.ebx, e.ecx, e.edx)
        for e in table
    )
    return bytearray(_HEADER.pack(len(table), 0) + b"".join(packed))


def _ask(dev: int) -> CpuidTable:
    room = 128
    while room <= _MOST:
        buffer = bytearray(_HEADER.size + room * _ENTRY.size)
        _HEADER.pack_into(buffer, 0, room, 0)
        try:
            kvm.call(dev, kvm.GET_SUPPORTED_CPUID, buffer)
        except OSError as error:
            if error.errno != errno.E2BIG:
                raise EngineError(f"KVM does not tell its CPUID leaves: {error.strerror}") from None
            room *= 2
        else:
            count = _HEADER.unpack_from(buffer)[0]
            rows = (_ENTRY.unpack_from(buffer, _HEADER.size + i * _ENTRY.size) for i in range(count))
            return tuple(CpuidEntry(row[0], row[1] if row[2] & _SIGNIFICANT_INDEX else None, *row[3:]) for row in rows)
    raise EngineError(f"KVM claims more than {_MOST} CPUID leaves")


def _foreign(leaf: int) -> bool:
    return leaf >> 28 == 4 or leaf in _TOPOLOGY or leaf == _SVM_FEATURES


def _neutral(entry: CpuidEntry) -> CpuidEntry:
    """Take the host's processor count out of an entry, and nested virtualisation: Xen shows it if told to alone."""
    if entry.leaf == 1:  # APIC id, logical processors; VMX; HTT
        return replace(entry, ebx=entry.ebx & 0xFFFF, ecx=entry.ecx & ~_VMX, edx=entry.edx & ~(1 << 28))
    if entry.leaf == 0x80000001:
        return replace(entry, ecx=entry.ecx & ~_SVM)
    if entry.leaf in (4, 0x8000001D):  # cores and threads that share the cache; keep level, size and type
        return replace(entry, eax=entry.eax & 0x3FFF)
    if entry.leaf == 0x80000008:  # cores
        return replace(entry, ecx=entry.ecx & ~0xF0FF)
    return entry


def _no_xsave(entry: CpuidEntry) -> CpuidEntry:
    if entry.leaf == 1:
        return replace(entry, ecx=entry.ecx & ~_XSAVE_1_ECX)
    if entry.leaf == 7 and entry.subleaf == 0:
        ebx, ecx, edx = _XSAVE_7
        return replace(entry, ebx=entry.ebx & ~ebx, ecx=entry.ecx & ~ecx, edx=entry.edx & ~edx)
    if entry.leaf == 0x80000001:
        return replace(entry, ecx=entry.ecx & ~_XSAVE_EXTENDED_ECX)
    if entry.leaf == 7:
        return replace(entry, eax=0, ebx=0, ecx=0, edx=0)
    return entry
