"""vcpu_hvm_context: every rule broken alone, and what an accepted one becomes (facts/xen-abi.md, 8).

The rules are those of xen/arch/x86/hvm/domain.c, check_segment and arch_set_info_hvm_guest.
"""

from __future__ import annotations

import pytest

from pvh.build.cpu_state import GPR_NAMES, CpuState, SegmentRegister, TableRegister
from pvh.xen.vcpu_context import parse
from xen.contexts import mode_32b, mode_64b
from xen.guest import CPUID

EINVAL = 22
LME, LMA = 1 << 8, 1 << 10


def accepted(raw: bytes) -> CpuState:
    state = parse(raw, CPUID)
    assert isinstance(state, CpuState)
    return state


def test_the_contexts_to_break_are_accepted() -> None:
    accepted(mode_32b())
    accepted(mode_64b())


# Each case breaks the one rule it names.
REFUSED_32B = {
    "pad": {"pad": 1},
    "pad, top bit": {"pad": 1 << 31},
    "pad1": {"pad1": 1},
    "pad2[0]": {"pad2_0": 1},
    "pad2[1]": {"pad2_1": 1 << 15},
    "pad2[2]": {"pad2_2": 1},
    "mode 2": {"mode": 2},
    "mode -1": {"mode": 0xFFFFFFFF},
    **{
        f"{segment}: attribute bit {bit}": {f"{segment}_ar": ar | 1 << bit}
        for segment, ar in (("cs", 0xC9B), ("ds", 0xC93), ("ss", 0xC93), ("es", 0xC93), ("tr", 0x8B))
        for bit in (12, 13, 14, 15)
    },
    "DS: bit 12 alone is not null": {"ds_ar": 1 << 12},
    "ES: bit 15 alone is not null": {"es_ar": 1 << 15},
    "CS null": {"cs_ar": 0, "cs_base": 0, "cs_limit": 0xFFFFFFFF},
    "SS null": {"ss_ar": 0},
    "TR null": {"tr_ar": 0},
    "CS: S clear": {"cs_ar": 0xC8B},
    "DS: S clear": {"ds_ar": 0xC83},
    "SS: S clear": {"ss_ar": 0xC83},
    "ES: S clear": {"es_ar": 0xC83},
    "CS: not present": {"cs_ar": 0xC1B},
    "DS: not present": {"ds_ar": 0xC13},
    "SS: not present": {"ss_ar": 0xC13},
    "ES: not present": {"es_ar": 0xC13},
    "TR: not present": {"tr_ar": 0x0B},
    "CS: data": {"cs_ar": 0xC93},
    "SS: code, readable": {"ss_ar": 0xC9B},
    "SS: read-only": {"ss_ar": 0xC91},
    "DS: code, execute-only": {"ds_ar": 0xC99},
    "ES: code, execute-only": {"es_ar": 0xC99},
    "TR: S set": {"tr_ar": 0x9B},
    "TR: 16-bit TSS": {"tr_ar": 0x81},
    "TR: busy 16-bit TSS": {"tr_ar": 0x83},
    "TR: LDT": {"tr_ar": 0x82},
    "TR: call gate": {"tr_ar": 0x8C},
    "TR: interrupt gate": {"tr_ar": 0x8E},
    "TR: trap gate": {"tr_ar": 0x8F},
    "EIP behind a byte limit": {"cs_ar": 0x49B, "cs_limit": 0xFFF, "eip": 0x1000},
    "EIP behind a page limit": {"cs_limit": 0, "eip": 0x1000},
    "EIP behind a page limit that wraps": {"cs_limit": 0x100000, "eip": 0x1000},
    "SS.DPL above CS.DPL": {"ss_ar": 0xCB3},
    "SS.DPL below CS.DPL": {"cs_ar": 0xCFB, "ss_ar": 0xCD3},
    "DS.DPL above CS.DPL": {"ds_ar": 0xCB3},
    "ES.DPL above CS.DPL": {"es_ar": 0xCB3},
    "DS.DPL 3, CS.DPL 2": {"cs_ar": 0xCDB, "ss_ar": 0xCD3, "ds_ar": 0xCF3},
    "ES.DPL 3, CS.DPL 2": {"cs_ar": 0xCDB, "ss_ar": 0xCD3, "es_ar": 0xCF3},
    "LMA without LME": {"efer": LMA},
    "CR4: reserved bit 31": {"cr4": 1 << 31},
    "CR4: VMXE": {"cr4": 1 << 13},
    "CR4: SMEP that CPUID lacks": {"cr4": 1 << 20},
    "EFER: unknown bit 1": {"efer": 2},
    "EFER: unknown bit 63": {"efer": 1 << 63},
    "EFER: SVME": {"efer": 1 << 12},
    "EFER: FFXSE that CPUID lacks": {"efer": 1 << 14},
}


@pytest.mark.parametrize("changes", REFUSED_32B.values(), ids=REFUSED_32B)
def test_mode_32b_refuses(changes: dict[str, int]) -> None:
    assert parse(mode_32b(**changes), CPUID) == -EINVAL


# On the other side of each boundary, and what one would think is refused.
ACCEPTED_32B = {
    "DS null": {"ds_ar": 0},
    "ES null": {"es_ar": 0},
    "CS: execute-only": {"cs_ar": 0xC98},
    "CS: conforming": {"cs_ar": 0xC9E},
    "SS: expand-down": {"ss_ar": 0xC96},
    "DS: read-only": {"ds_ar": 0xC90},
    "ES: readable code": {"es_ar": 0xC9A},
    "TR: available 32-bit TSS": {"tr_ar": 0x89},
    "TR: any limit, any DPL": {"tr_ar": 0xEB, "tr_limit": 0},
    "AVL": {"cs_ar": 0xD9B, "ds_ar": 0xD93},
    "16-bit CS": {"cs_ar": 0x9B, "cs_limit": 0xFFFF},
    "EIP at a byte limit": {"cs_ar": 0x49B, "cs_limit": 0x1000},
    "EIP at a page limit": {"cs_limit": 0, "eip": 0xFFF},
    "EIP at a page limit that wraps": {"cs_limit": 0x100000, "eip": 0xFFF},
    "EIP -1": {"eip": 0xFFFFFFFF},
    "all of DPL 3": {"cs_ar": 0xCFB, "ss_ar": 0xCF3, "ds_ar": 0xCF3, "es_ar": 0xCF3},
    "DS and ES below CS": {"cs_ar": 0xCFB, "ss_ar": 0xCF3},
    "null DS and ES": {"ds_ar": 0, "es_ar": 0, "ds_base": 5, "es_limit": 7},
    "LME without paging": {"efer": LME},
    "LMA and LME": {"efer": LMA | LME},
    "NX, SCE": {"efer": 1 << 11 | 1},
    "CR4: PCE needs no feature": {"cr4": 1 << 8},
    "CR0 is not looked at": {"cr0": 0xFFFFFFFF},
    "CR0.PE clear": {"cr0": 0},
    "CR0.PG without PE": {"cr0": 1 << 31},
    "CR3 is not looked at": {"cr3": 0xFFFFFFFF},
    "EFLAGS are not looked at": {"eflags": 0xFFFFFFFF},
    "CS.L and CS.D": {"cs_ar": 0xE9B},
}


@pytest.mark.parametrize("changes", ACCEPTED_32B.values(), ids=ACCEPTED_32B)
def test_mode_32b_accepts(changes: dict[str, int]) -> None:
    accepted(mode_32b(**changes))


REFUSED_64B = {
    "pad": {"pad": 1},
    "RIP: first address that is not canonical": {"rip": 1 << 47},
    "RIP: last one that is not": {"rip": 0xFFFF_7FFF_FFFF_FFFF},
    "RIP: of five levels": {"rip": 1 << 48},
    "RIP: bit 63 alone": {"rip": 1 << 63},
    "CR0.PG clear": {"cr0": 1},
    "CR4.PAE clear": {"cr4": 0},
    "EFER.LME clear": {"efer": 0},
    "EFER.LMA alone": {"efer": LMA},
    "CR4: LA57": {"cr4": 1 << 5 | 1 << 12},
    "CR4: upper half": {"cr4": 1 << 5 | 1 << 32},
    "EFER: unknown bit 9": {"efer": LME | 1 << 9},
}


@pytest.mark.parametrize("changes", REFUSED_64B.values(), ids=REFUSED_64B)
def test_mode_64b_refuses(changes: dict[str, int]) -> None:
    assert parse(mode_64b(**changes), CPUID) == -EINVAL


ACCEPTED_64B = {
    "RIP: last of the lower half": {"rip": (1 << 47) - 1},
    "RIP: first of the upper half": {"rip": 0xFFFF_8000_0000_0000},
    "RIP -1": {"rip": 2**64 - 1},
    "bytes 120 to 127 are ignored": {"tail": 2**64 - 1},
    "CR0 is not looked at but for PG": {"cr0": 2**64 - 1},
    "CR0.PE clear": {"cr0": 1 << 31},
    "CR3 is not looked at": {"cr3": 2**64 - 1},
    "RFLAGS are not looked at": {"rflags": 2**64 - 1},
}


@pytest.mark.parametrize("changes", ACCEPTED_64B.values(), ids=ACCEPTED_64B)
def test_mode_64b_accepts(changes: dict[str, int]) -> None:
    accepted(mode_64b(**changes))


def test_long_mode_needs_the_feature() -> None:
    without = tuple(entry for entry in CPUID if entry.leaf != 0x80000001)
    assert parse(mode_64b(), without) == -EINVAL
    assert isinstance(parse(mode_32b(), without), CpuState)


def test_every_field_of_mode_32b_comes_from_its_offset() -> None:
    """Bytes of the whole structure, but where a rule limits them, are all different."""
    names = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
    gprs = {name: 0x80000000 + i for i, name in enumerate(names, 1)}
    bases = {f"{name}_base": 0x90000000 + i for i, name in enumerate(("cs", "ds", "ss", "es", "tr"), 1)}
    limits = {f"{name}_limit": 0xA0 + i for i, name in enumerate(("cs", "ds", "ss", "es", "tr"), 1)}
    types = {"cs_ar": 0x49B, "ds_ar": 0x91, "ss_ar": 0x493, "es_ar": 0x95, "tr_ar": 0x8B}
    others = {"eip": 0xA1, "eflags": 0x46, "cr0": 0x11, "cr3": 0xB000, "cr4": 0x100, "efer": 1}
    assert accepted(mode_32b(**gprs, **bases, **limits, **types, **others)) == CpuState(
        gprs=(*gprs.values(), *(0,) * 8),
        rip=0xA1,
        rflags=0x46,
        cr0=0x11,
        cr3=0xB000,
        cr4=0x100,
        efer=1,
        cs=SegmentRegister(0, 0x90000001, 0xA1, 0x49B),
        ds=SegmentRegister(0, 0x90000002, 0xA2, 0x91),
        ss=SegmentRegister(0, 0x90000003, 0xA3, 0x493),
        es=SegmentRegister(0, 0x90000004, 0xA4, 0x95),
        tr=SegmentRegister(0, 0x90000005, 0xA5, 0x8B),
        fs=SegmentRegister(0, 0, 0xFFFFFFFF, 0xC93),
        gs=SegmentRegister(0, 0, 0xFFFFFFFF, 0xC93),
        ldtr=SegmentRegister(),
        gdtr=TableRegister(),
        idtr=TableRegister(),
    )


def test_every_field_of_mode_64b_comes_from_its_offset() -> None:
    """Segments are not in it: Xen makes them flat, 64-bit code, with a TSS of the least size."""
    gprs = {name: 0x8000_0000_0000_0000 + i for i, name in enumerate(GPR_NAMES[:8], 1)}
    others = {"rip": 0xFFFF_8000_0000_1234, "rflags": 0x246, "cr0": 0x80010011, "cr3": 0x7000, "cr4": 0x120}
    flat = SegmentRegister(0, 0, 0xFFFFFFFF, 0xC93)
    assert accepted(mode_64b(**gprs, **others, efer=LME | 1)) == CpuState(
        gprs=(*gprs.values(), *(0,) * 8),
        rip=0xFFFF_8000_0000_1234,
        rflags=0x246,
        cr0=0x80010011,
        cr3=0x7000,
        cr4=0x120,
        efer=LME | LMA | 1,
        cs=SegmentRegister(0, 0, 0xFFFFFFFF, 0xA9B),
        ds=flat,
        ss=flat,
        es=flat,
        fs=flat,
        gs=flat,
        tr=SegmentRegister(0, 0, 0x67, 0x8B),
    )


@pytest.mark.parametrize(
    ("given", "kept"),
    [(0, 2), (2, 2), (0x28, 2), (0x8000, 2), (1 << 22, 2), (0xFFFFFFFF, 0x3F7FD7), (0x3F7FD5, 0x3F7FD7)],
)
def test_flags_that_are_none_are_dropped_and_bit_1_is_set(given: int, kept: int) -> None:
    assert accepted(mode_32b(eflags=given)).rflags == kept
    assert accepted(mode_64b(rflags=given | 0xFFFFFFFF << 32)).rflags == kept


@pytest.mark.parametrize(("given", "kept"), [(0, 0), (LME, LME | LMA), (LME | LMA, LME | LMA)])
def test_lma_follows_lme_whether_paging_is_on_or_not(given: int, kept: int) -> None:
    assert accepted(mode_32b(efer=given)).efer == kept


@pytest.mark.parametrize(
    ("segment", "given", "kept"),
    [
        ("cs", 0xC98, 0xC99),
        ("ds", 0xC92, 0xC93),
        ("ss", 0xC92, 0xC93),
        ("es", 0xC90, 0xC91),
        ("tr", 0x89, 0x8B),
        ("ds", 0, 0),
    ],
)
def test_present_segments_are_marked_accessed_and_the_tss_busy(segment: str, given: int, kept: int) -> None:
    changes = {f"{segment}_ar": given}
    limit = {"tr": {}, "ds": {"ds_limit": 0xFFFFFFFF}}.get(segment, {})
    state: SegmentRegister = getattr(accepted(mode_32b(**changes, **limit)), segment)
    assert state.attributes == kept


@pytest.mark.parametrize(
    ("limit", "given", "kept"),
    [
        (0xFFFFF, 0xC9B, 0x49B),  # 4 GiB one would think; it is a MiB
        (0x100000, 0x49B, 0xC9B),
        (0xFFFFFFFF, 0x49B, 0xC9B),
        (0x1000, 0xC9B, 0x49B),
    ],
)
def test_a_limit_is_in_bytes_and_g_is_made_to_match(limit: int, given: int, kept: int) -> None:
    """Only the check of EIP scales it: hvm_set_segment_register, xen/arch/x86/hvm/hvm.c."""
    assert accepted(mode_32b(cs_limit=limit, cs_ar=given, eip=0)).cs == SegmentRegister(0, 0, limit, kept)


def test_a_null_segment_keeps_what_it_was_given() -> None:
    assert accepted(mode_32b(ds_ar=0, ds_base=0x55, ds_limit=0x100000)).ds == SegmentRegister(0, 0x55, 0x100000, 0)


def test_a_16_bit_start_has_real_mode_segments_with_any_base() -> None:
    code = {"cs_base": 0x123450, "cs_limit": 0xFFFF, "cs_ar": 0x9B, "eip": 0xFFFF, "cr0": 0}
    state = accepted(mode_32b(**code))
    assert (state.bits, state.cpl, state.linear_rip) == (16, 0, 0x133440 + 0xF)


def test_compatibility_mode_starts_through_mode_32b() -> None:
    state = accepted(mode_32b(cr0=0x80000001, cr4=1 << 5, efer=LME))
    assert (state.bits, state.efer) == (32, LME | LMA)
