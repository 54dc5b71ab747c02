"""CPUID by KVM (Intel SDM vol. 2, CPUID; KVM_GET_SUPPORTED_CPUID in api.rst)."""

from __future__ import annotations

import struct

import pytest

from pvh.engines.engine import CpuidEntry, CpuidTable
from pvh.engines.kvm import cpuid
from pvh.errors import EngineError

LEAF_1 = CpuidEntry(1, None, 0, 0x05040800, 0xFFFFFFFF, 0xFFFFFFFF)


def test_the_host_does_not_show(kvm_device: int) -> None:
    table = cpuid.supported(kvm_device)
    assert not any(0x40000000 <= entry.leaf < 0x50000000 for entry in table), "KVM's own leaves are no personality's"
    assert not any(entry.leaf in (0xB, 0x1F) for entry in table)
    (leaf,) = [entry for entry in table if entry.leaf == 1]
    assert leaf.ebx >> 16 == 0, "APIC id and logical processors"
    assert not leaf.edx & 1 << 28, "HTT"


def test_nested_virtualisation_does_not_show(kvm_device: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """VMX and SVM (leaf 1 ECX[5], 0x80000001 ECX[2], leaf 0x8000000A): Xen refuses EFER.SVME and CR4.VMXE too."""
    extended = CpuidEntry(0x80000001, None, 0, 0, 0xFFFFFFFF, 0)
    found = (LEAF_1, extended, CpuidEntry(0x8000000A, None, 1, 8, 0, 0))

    def ask(_: int) -> CpuidTable:
        return found

    monkeypatch.setattr(cpuid, "_ask", ask)
    first, second = cpuid.supported(kvm_device)
    assert first.ecx == 0xFFFFFFFF & ~(1 << 5)
    assert second.ecx == 0xFFFFFFFF & ~(1 << 2)


def test_what_fails_here_is_hidden() -> None:
    table = (LEAF_1, CpuidEntry(7, 0, 0, 1 << 5 | 1, 0, 0), CpuidEntry(0xD, 0, 7, 576, 576, 0))
    first, second, third = cpuid.without(table, frozenset({"cmpxchg16b"}))
    assert first.ecx == 0xFFFFFFFF & ~(1 << 13)
    assert (second, third) == table[1:]
    first, second = cpuid.without(table, frozenset({"xrstor"}))
    assert not first.ecx & (1 << 26 | 1 << 27 | 1 << 28), "XSAVE, OSXSAVE, AVX"
    assert first.ecx & 1 << 13
    assert second.ebx == 1, "AVX2 needs XSAVE"
    assert cpuid.without(table, frozenset({"iret32", "int3", "speed"})) == table


def test_the_wire_form_is_kvm_cpuid2s() -> None:
    table = (CpuidEntry(1, None, 2, 3, 4, 5), CpuidEntry(4, 0, 6, 7, 8, 9))
    packed = cpuid.pack(table)
    assert struct.unpack_from("<II", packed) == (2, 0)
    assert struct.unpack_from("<7I", packed, 8) == (1, 0, 0, 2, 3, 4, 5)
    assert struct.unpack_from("<7I", packed, 48) == (4, 0, 1, 6, 7, 8, 9), "a subleaf is significant (flag 1)"
    assert len(packed) == 8 + 2 * 40


def test_a_descriptor_that_is_no_kvm_is_an_engine_error() -> None:
    with open("/dev/null", "rb") as other, pytest.raises(EngineError, match="CPUID"):
        cpuid.supported(other.fileno())
