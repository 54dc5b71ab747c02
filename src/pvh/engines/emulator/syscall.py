"""SYSCALL and SYSENTER, which the library strips of their effect (AMD APM vol. 3; Intel SDM vol. 2)."""

from __future__ import annotations

from pvh.abi import x86
from pvh.build.cpu_state import SegmentRegister
from pvh.engines.emulator.registers import CS, RCX, RSP, SS, Registers

_CODE_64 = 0xA9B
_CODE_32 = 0xC9B
_DATA = 0xC93
_FLAT = 0xFFFFFFFF
_R11 = 11


def syscall(registers: Registers, after: int) -> int | None:
    """Enter the kernel by STAR and LSTAR; return the new RIP, or None for #UD. The snapshot is changed."""
    if not registers.efer & x86.EFER_SCE or not registers.protected:
        return None
    star = registers.syscall_msr("star")
    selector = star >> 32 & 0xFFFC
    flags = registers.flags
    if registers.long_mode:
        target = registers.syscall_msr("lstar" if registers.bits == 64 else "cstar")
        registers.set_gpr(RCX, after)
        registers.set_gpr(_R11, flags & ~x86.RFLAGS_RF)
        registers.flags = flags & ~(registers.syscall_msr("sfmask") | x86.RFLAGS_RF)
        code = _CODE_64
    else:
        target = star & 0xFFFFFFFF
        registers.set_gpr(RCX, after & 0xFFFFFFFF)
        registers.flags = flags & ~(x86.RFLAGS_VM | x86.RFLAGS_IF | x86.RFLAGS_RF)
        code = _CODE_32
    _enter(registers, selector, code)
    return target


def sysenter(registers: Registers, cs: int, esp: int, eip: int) -> int | None:
    """Enter the kernel by the SYSENTER MSRs; return the new RIP, or None for #GP(0). The snapshot is changed.

    As on the AMD processor that is emulated, only legacy mode has it.
    """
    if not registers.protected or not cs & 0xFFFC:
        return None
    registers.flags = registers.flags & ~(x86.RFLAGS_VM | x86.RFLAGS_IF | x86.RFLAGS_RF)
    registers.set_gpr(RSP, esp & 0xFFFFFFFF)
    _enter(registers, cs & 0xFFFC, _CODE_32)
    return eip & 0xFFFFFFFF


def _enter(registers: Registers, selector: int, code: int) -> None:
    registers.set_segment(CS, SegmentRegister(selector, 0, _FLAT, code))
    registers.set_segment(SS, SegmentRegister(selector + 8, 0, _FLAT, _DATA))
    registers.set_mode(0)
