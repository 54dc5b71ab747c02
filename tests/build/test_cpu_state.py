"""What a processor's state implies: width, privilege and linear address of the code (SDM vol. 3, 3.4.5 and 5.5)."""

from __future__ import annotations

from dataclasses import replace

from pvh.build.cpu_state import CpuState, SegmentRegister

REAL = CpuState(rip=0x10, cs=SegmentRegister(0xF000, 0xFFFF0000, 0xFFFF, 0x9B))
LONG = CpuState(rip=1 << 40, cr0=0x80000011, efer=0x500, cs=SegmentRegister(8, 0, 0xFFFFFFFF, 0xA9B))


def test_reset_is_16_bit_code_at_the_base_of_cs() -> None:
    assert (REAL.bits, REAL.cpl, REAL.linear_rip) == (16, 0, 0xFFFF0010)


def test_linear_addresses_wrap_at_4_gib_outside_64_bit_code() -> None:
    assert replace(REAL, rip=0x10010).linear_rip == 0x10


def test_64_bit_code_has_no_base() -> None:
    assert (LONG.bits, LONG.linear_rip) == (64, 1 << 40)


def test_compatibility_mode_is_told_by_the_bits_of_cs() -> None:
    assert replace(LONG, cs=SegmentRegister(8, 0, 0xFFFFFFFF, 0xC9B)).bits == 32


def test_privilege_is_that_of_ss_and_3_in_virtual_8086_mode() -> None:
    ring3 = replace(LONG, ss=SegmentRegister(0x2B, 0, 0xFFFFFFFF, 0xCF3))
    assert ring3.cpl == 3
    assert CpuState(cr0=0x11, rflags=0x20002).cpl == 3
