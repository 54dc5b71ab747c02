"""Hypervisor CPUID (facts/xen-abi.md, 6; xen/arch/x86/cpuid.c); platform bare's leaves (SDM vol. 2, CPUID)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvh.engines.engine import CpuidEntry
from pvh.xen.clock import scale
from pvh.xen.cpuid import apic_id, bare_leaves, with_apic_id, xen_leaves

BASE = 0x40000000
ENGINE = (
    CpuidEntry(0, None, 0xD, 1, 2, 3),
    CpuidEntry(1, None, 0x600, 0x00AB_0800, 0x0000_2000, 0x1000_0001),
    CpuidEntry(0xB, 0, 0, 0, 0, 0xFF),
    CpuidEntry(0xB, 1, 0, 0, 1, 0xFF),
    CpuidEntry(0x15, None, 9, 9, 9, 9),
    CpuidEntry(0x80000000, None, 0x80000008, 0, 0, 0),
)


def leaf(number: int, subleaf: int | None = None, vcpu: int = 0) -> CpuidEntry:
    found = [e for e in xen_leaves(vcpu, 7, 2_400_000) if (e.leaf, e.subleaf) == (BASE + number, subleaf)]
    assert len(found) == 1
    return found[0]


def test_leaf_0_has_the_signature_and_at_least_two_more() -> None:
    entry = leaf(0)
    assert struct.pack("<III", entry.ebx, entry.ecx, entry.edx) == b"XenVMMXenVMM"
    assert entry.eax == BASE + 5


def test_leaf_1_is_the_version() -> None:
    assert leaf(1).eax == 4 << 16 | 20


def test_leaf_2_is_one_hypercall_page_and_its_msr() -> None:
    assert (leaf(2).eax, leaf(2).ebx, leaf(2).ecx) == (1, BASE, 0)


def test_leaf_3_tells_the_tsc() -> None:
    """Host TSC reliable, never emulated, kHz; then the scale of vcpu_time_info; then the host's kHz."""
    assert (leaf(3, 0).eax, leaf(3, 0).ebx, leaf(3, 0).ecx, leaf(3, 0).edx) == (2, 2, 2_400_000, 0)
    mul, shift = scale(2_400_000)
    assert (leaf(3, 1).ecx, leaf(3, 1).edx) == (mul, shift & 0xFFFFFFFF)
    assert leaf(3, 2).eax == 2_400_000


@pytest.mark.parametrize("vcpu", [0, 1, 127])
def test_leaf_4_names_vcpu_and_domain_and_offers_upcall_vectors(vcpu: int) -> None:
    assert (leaf(4, None, vcpu).ebx, leaf(4, None, vcpu).ecx) == (vcpu, 7)
    assert leaf(4).eax & (1 << 3 | 1 << 4 | 1 << 6) == 1 << 3 | 1 << 4 | 1 << 6


def test_leaf_5_is_for_pv() -> None:
    assert leaf(5) == CpuidEntry(BASE + 5, None, 0, 0, 0, 0)


@pytest.mark.parametrize("vcpu", [0, 1, 127])
def test_apic_ids_are_twice_the_vcpu_id(vcpu: int) -> None:
    """In leaf 1 EBX[31:24] and leaf 0xb EDX."""
    table = with_apic_id(ENGINE, vcpu, hypervisor=True)
    assert apic_id(vcpu) == 2 * vcpu
    assert table[1].ebx >> 24 == 2 * vcpu
    assert [e.edx for e in table if e.leaf == 0xB] == [2 * vcpu] * 2
    assert table[1].ebx & 0xFFFF == 0x0800


def test_the_hypervisor_bit_is_for_platform_xen() -> None:
    """CPUID.1:ECX[31] must be 1 for guests to scan at all."""
    assert with_apic_id(ENGINE, 0, hypervisor=True)[1].ecx == 0x8000_2000
    hidden = with_apic_id(with_apic_id(ENGINE, 0, hypervisor=True), 0, hypervisor=False)
    assert hidden[1].ecx == 0x2000


def test_other_leaves_are_the_engines() -> None:
    table = with_apic_id(ENGINE, 3, hypervisor=True)
    assert [table[0], *table[4:]] == [ENGINE[0], *ENGINE[4:]]


@given(st.integers(100_000, 10_000_000))
def test_bare_leaf_0x15_gives_the_tsc_frequency(khz: int) -> None:
    """TSC Hz = ECX * EBX / EAX; one million kHz or ten, in 32 bits."""
    (entry,) = [e for e in bare_leaves(ENGINE, khz) if e.leaf == 0x15]
    assert max(entry.eax, entry.ebx, entry.ecx) < 1 << 32
    assert abs(entry.ecx * entry.ebx / entry.eax - khz * 1000) <= 4


def test_bare_leaf_0x16_is_in_mhz_and_leaf_0_reaches_it() -> None:
    table = {e.leaf: e for e in bare_leaves(ENGINE, 2_400_000)}
    assert table[0x16].eax == table[0x16].ebx == 2400
    assert table[0].eax == 0x16
    assert not [e for e in bare_leaves(ENGINE, 1) if 0x40000000 <= e.leaf < 0x50000000]
