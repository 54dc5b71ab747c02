"""What CR4 and EFER may be, by CPUID (xen/arch/x86/hvm/hvm.c: hvm_cr4_guest_valid_bits, hvm_efer_valid)."""

from __future__ import annotations

from typing import Literal

import pytest

from pvh.engines.engine import CpuidEntry
from pvh.record import replace
from pvh.xen.vcpu_features import cr4_bits, efer_bits, physical_bits

Register = Literal["eax", "ebx", "ecx", "edx"]
PCE = 1 << 8

# The bits of CR4, and the feature: leaf, subleaf, register, bit (public/arch-x86/cpufeatureset.h, Intel SDM vol. 2A)
CR4: dict[str, tuple[int, int, int, Register, int]] = {
    "vme": (0b11, 1, 0, "edx", 1),
    "de": (1 << 3, 1, 0, "edx", 2),
    "pse": (1 << 4, 1, 0, "edx", 3),
    "tsc": (1 << 2, 1, 0, "edx", 4),
    "pae": (1 << 5, 1, 0, "edx", 6),
    "mce": (1 << 6, 1, 0, "edx", 7),
    "pge": (1 << 7, 1, 0, "edx", 13),
    "mca": (1 << 6, 1, 0, "edx", 14),
    "fxsr": (1 << 9, 1, 0, "edx", 24),
    "sse": (1 << 10, 1, 0, "edx", 25),
    "pcid": (1 << 17, 1, 0, "ecx", 17),
    "xsave": (1 << 18, 1, 0, "ecx", 26),
    "fsgsbase": (1 << 16, 7, 0, "ebx", 0),
    "smep": (1 << 20, 7, 0, "ebx", 7),
    "smap": (1 << 21, 7, 0, "ebx", 20),
    "umip": (1 << 11, 7, 0, "ecx", 2),
    "pku": (1 << 22, 7, 0, "ecx", 3),
    "cet-ss": (1 << 23, 7, 0, "ecx", 7),
    "pks": (1 << 24, 7, 0, "ecx", 31),
    "cet-ibt": (1 << 23, 7, 0, "edx", 20),
    "lass": (1 << 27, 7, 1, "eax", 6),
}
EFER: dict[str, tuple[int, int, int, Register, int]] = {
    "syscall": (1, 0x80000001, 0, "edx", 11),
    "nx": (1 << 11, 0x80000001, 0, "edx", 20),
    "ffxsr": (1 << 14, 0x80000001, 0, "edx", 25),
    "lm": (1 << 8 | 1 << 10, 0x80000001, 0, "edx", 29),
    "auto-ibrs": (1 << 21, 0x80000021, 0, "eax", 8),
}


def table(leaf: int, subleaf: int, register: Register, value: int) -> tuple[CpuidEntry, ...]:
    entry = CpuidEntry(leaf, subleaf if leaf == 7 else None, 0, 0, 0, 0)
    changes: dict[str, int] = {register: value}
    return (replace(entry, **changes),)


@pytest.mark.parametrize("feature", CR4)
def test_a_feature_admits_its_bits_of_cr4_and_no_others(feature: str) -> None:
    bits, leaf, subleaf, register, bit = CR4[feature]
    assert cr4_bits(table(leaf, subleaf, register, 1 << bit)) == bits | PCE
    assert cr4_bits(table(leaf, subleaf, register, ~(1 << bit))) & bits in (0, 1 << 6)
    assert efer_bits(table(leaf, subleaf, register, 1 << bit)) == 0


@pytest.mark.parametrize("feature", EFER)
def test_a_feature_admits_its_bits_of_efer_and_no_others(feature: str) -> None:
    bits, leaf, subleaf, register, bit = EFER[feature]
    assert efer_bits(table(leaf, subleaf, register, 1 << bit)) == bits
    assert efer_bits(table(leaf, subleaf, register, ~(1 << bit))) & bits == 0
    assert cr4_bits(table(leaf, subleaf, register, 1 << bit)) == PCE


def test_the_subleaf_matters() -> None:
    assert cr4_bits(table(7, 1, "ebx", 0xFFFFFFFF)) == PCE
    assert cr4_bits(table(7, 0, "eax", 0xFFFFFFFF)) == PCE


def test_nothing_nested_is_ever_admitted() -> None:
    """VMXE and SVME: Xen asks for nested virtualisation, which is off."""
    everything = tuple(CpuidEntry(leaf, None, *(0xFFFFFFFF,) * 4) for leaf in (1, 7, 0x80000001, 0x80000021))
    assert not cr4_bits(everything) & 1 << 13
    assert not efer_bits(everything) & 1 << 12


@pytest.mark.parametrize(("eax", "wanted"), [(0x3028, 40), (0x302E, 46), (0x24, 36)])
def test_maxphyaddr_is_in_leaf_80000008(eax: int, wanted: int) -> None:
    assert physical_bits((CpuidEntry(1, None, 99, 0, 0, 0), CpuidEntry(0x80000008, None, eax, 0, 0, 0))) == wanted


def test_without_the_leaf_it_is_36() -> None:
    assert physical_bits(()) == 36
