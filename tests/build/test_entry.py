"""BSP entry state: xen docs/misc/pvh.pandoc; libxenguest's values where that says nothing (facts/xen-abi.md, 3)."""

from __future__ import annotations

import pytest

from build.plans import INFO, plan
from pvh.build.cpu_state import CpuState, SegmentRegister, TableRegister
from pvh.build.entry import entry_state
from pvh.plan.options import Abi, BootOptions


def state() -> CpuState:
    return entry_state(plan())


def test_eip_is_the_entry_note_and_ebx_the_address_of_start_info() -> None:
    assert state().rip == 0x100000
    assert state().gprs[3] == INFO


def test_other_registers_are_zero() -> None:
    assert state().gprs == (0, 0, 0, INFO) + (0,) * 12
    assert (state().cr2, state().cr3, state().efer) == (0, 0, 0)
    assert (state().gdtr, state().idtr) == (TableRegister(0, 0), TableRegister(0, 0))


def test_cr0_has_only_pe_and_the_fixed_et_and_cr4_nothing() -> None:
    assert (state().cr0, state().cr4) == (0x11, 0)


def test_cs_is_flat_32_bit_code_execute_read() -> None:
    assert state().cs == SegmentRegister(0, 0, 0xFFFFFFFF, 0xC9B)


@pytest.mark.parametrize("name", ["ds", "es", "ss"])
def test_data_segments_are_flat_read_write(name: str) -> None:
    assert getattr(state(), name) == SegmentRegister(0, 0, 0xFFFFFFFF, 0xC93)


@pytest.mark.parametrize("abi", ["v1", "v0", "draft-c"])
def test_tr_is_a_busy_32_bit_tss_of_limit_0x67_in_every_revision(abi: Abi) -> None:
    assert entry_state(plan(options=BootOptions(abi=abi))).tr == SegmentRegister(0, 0, 0x67, 0x8B)


@pytest.mark.parametrize("name", ["fs", "gs", "ldtr"])
def test_the_rest_is_null(name: str) -> None:
    assert getattr(state(), name) == SegmentRegister(0, 0, 0, 0)


def test_eflags_has_only_its_fixed_bit_so_vm_if_and_tf_are_clear() -> None:
    assert state().rflags == 0x2


def test_debug_registers_and_mtrr_default_type_are_what_xen_gives() -> None:
    assert (state().dr6, state().dr7, state().mtrr_def_type) == (0xFFFF0FF0, 0x400, 0x806)


def test_it_runs_32_bit_code_at_privilege_0_from_the_entry() -> None:
    assert (state().bits, state().cpl, state().linear_rip) == (32, 0, 0x100000)
