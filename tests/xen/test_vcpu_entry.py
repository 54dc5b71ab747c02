"""States that Xen lets pass: what hardware makes of them (Intel SDM vol. 3, 27.3.1; AMD APM vol. 2, 15.5.1)."""

from __future__ import annotations

import pytest

from pvh.build.cpu_state import CpuState, SegmentRegister, TableRegister
from pvh.record import replace
from pvh.xen.vcpu_context import parse
from pvh.xen.vcpu_entry import enter, sipi_state
from xen.contexts import mode_32b, mode_64b
from xen.guest import CPUID

PE, ET, WP, NW, CD, PG = 1, 1 << 4, 1 << 16, 1 << 29, 1 << 30, 1 << 31
PAE, PCIDE, CET = 1 << 5, 1 << 17, 1 << 23
LME, LMA = 1 << 8, 1 << 10


def state(raw: bytes) -> CpuState:
    parsed = parse(raw, CPUID)
    assert isinstance(parsed, CpuState)
    return parsed


FLAT, LONG = state(mode_32b()), state(mode_64b())
COMPATIBILITY = state(mode_32b(cr0=PG | PE, cr4=PAE, efer=LME))

REFUSED = {
    "CR0 has bits above 31": replace(LONG, cr0=PG | PE | 1 << 32),
    "CR0.NW is set without CR0.CD": replace(FLAT, cr0=PE | NW),
    "CR0.PG is set without CR0.PE": replace(FLAT, cr0=PG),
    "long mode is on without CR4.PAE": replace(COMPATIBILITY, cr4=0),
    "CS.L and CS.D are both set in long mode": replace(COMPATIBILITY, cs=SegmentRegister(0, 0, 0xFFFFFFFF, 0xE9B)),
    "CR4.PCIDE is set outside long mode": replace(FLAT, cr4=PCIDE),
    "CR4.CET is set without CR0.WP": replace(FLAT, cr4=CET),
    "RFLAGS.VM is set": replace(FLAT, rflags=2 | 1 << 17),
    "CR3 has bits above 39": replace(LONG, cr3=1 << 40),
}


@pytest.mark.parametrize("why", REFUSED)
def test_hardware_refuses(why: str) -> None:
    assert enter(REFUSED[why], 40) == why


ENTERED = {
    "flat": FLAT,
    "64-bit": LONG,
    "compatibility mode": COMPATIBILITY,
    "caches off": replace(FLAT, cr0=PE | ET | NW | CD),
    "cache disabled alone": replace(FLAT, cr0=PE | ET | CD),
    "real mode": replace(FLAT, cr0=ET),
    "32-bit paging": replace(FLAT, cr0=PG | PE | ET),
    "64-bit code by mode 32B": replace(COMPATIBILITY, cs=SegmentRegister(0, 0, 0xFFFFFFFF, 0xA9B)),
    "PCIDE in long mode": replace(LONG, cr4=PAE | PCIDE),
    "CET with WP": replace(FLAT, cr0=PE | ET | WP, cr4=CET),
    "the highest CR3": replace(LONG, cr3=(1 << 40) - 1),
    "every other flag": replace(FLAT, rflags=0x3D7FD7),
    "every other bit of CR0": replace(LONG, cr0=0xE005003F),
}


@pytest.mark.parametrize("name", ENTERED)
def test_hardware_enters_as_it_is(name: str) -> None:
    """But for CR0.ET, which is always 1."""
    given = ENTERED[name]
    assert enter(given, 40) == replace(given, cr0=given.cr0 | ET)


def test_bits_of_cr0_that_do_not_exist_read_0() -> None:
    entered = enter(replace(LONG, cr0=0xFFFFFFFF), 40)
    assert isinstance(entered, CpuState)
    assert entered.cr0 == 0xE005003F


def test_lma_is_on_only_with_paging() -> None:
    """Xen notes LMA with LME alone; a processor sets it when paging comes on."""
    given = state(mode_32b(efer=LME))
    assert given.efer == LME | LMA
    entered = enter(given, 40)
    assert isinstance(entered, CpuState)
    assert entered.efer == LME
    assert entered.bits == 32


def test_cs_l_means_nothing_outside_long_mode() -> None:
    """KVM_SET_SREGS refuses it there."""
    entered = enter(state(mode_32b(cs_ar=0xE9B)), 40)
    assert isinstance(entered, CpuState)
    assert entered.cs.attributes == 0xC9B


@pytest.mark.parametrize(("vector", "selector", "base"), [(0, 0, 0), (0x9A, 0x9A00, 0x9A000), (0xFF, 0xFF00, 0xFF000)])
def test_a_sipi_starts_in_real_mode_at_its_page(vector: int, selector: int, base: int) -> None:
    """hvm_vcpu_reset_state: CR0 = ET, everything else off, limits of 64 KiB."""
    data = SegmentRegister(0, 0, 0xFFFF, 0x93)
    started = sipi_state(vector)
    assert started == CpuState(
        cs=SegmentRegister(selector, base, 0xFFFF, 0x9B),
        ds=data,
        es=data,
        ss=data,
        fs=data,
        gs=data,
        tr=SegmentRegister(0, 0, 0xFFFF, 0x8B),
        ldtr=SegmentRegister(0, 0, 0xFFFF, 0x82),
        gdtr=TableRegister(0, 0xFFFF),
        idtr=TableRegister(0, 0xFFFF),
        cr0=0x10,
        rflags=2,
    )
    assert (started.bits, started.linear_rip) == (16, base)
    assert enter(started, 36) == started
