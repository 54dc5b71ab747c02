"""Model-specific registers the engine owns: those the emulated processor keeps itself, and a bank for the others.

What is neither goes to the sink, as Xen's own and unknown ones must. Sources: Intel SDM vol. 4, chapter 2; MTRRs SDM
vol. 3, 12.11; PAT 12.12; AMD APM vol. 2, appendix A.
"""

from __future__ import annotations

from collections.abc import Callable

from pvh.abi import x86
from pvh.engines.emulator.vmcb import MSR_READ, MSR_WRITE, Scratch

_BIOS_SIGN_ID = 0x8B
_MTRR_CAP = 0xFE
_MISC_ENABLE = 0x1A0
_MTRR_FIXED = (0x250, 0x258, 0x259, *range(0x268, 0x270))
_MTRR_VARIABLE = range(0x200, 0x210)
_MCG_CAP, _MCG_STATUS = 0x179, 0x17A
# What software asks an AMD processor of this family for, and what Xen shows a guest (xen/arch/x86/msr.c).
_SYSCFG, _HWCR, _NB_CFG, _LS_CFG, _DE_CFG = 0xC0010010, 0xC0010015, 0xC001001F, 0xC0011020, 0xC0011029
_HWCR_TSC_FREQ_SEL = 1 << 24
_DE_CFG_LFENCE_SERIALISES = 1 << 1
_PAT_RESET = 0x0007_0406_0007_0406
# 8 variable ranges, fixed ranges, write-combining
_MTRR_CAP_VALUE = 0x508
_MEMORY_TYPES = frozenset({0, 1, 4, 5, 6})
_UC_MINUS = 7
_APIC_BASE = 0xFEE00000
_APIC_ENABLE = 1 << 11
_APIC_BSP = 1 << 8
_MAXPHYADDR = 40
_EFER_WRITABLE = x86.EFER_SCE | x86.EFER_LME | x86.EFER_NX

# Kept by the library without side effects it gets wrong, so never seen here.
_NATIVE = (
    x86.MSR_SYSENTER_CS, x86.MSR_SYSENTER_ESP, x86.MSR_SYSENTER_EIP, x86.MSR_STAR, x86.MSR_LSTAR, x86.MSR_CSTAR,
    x86.MSR_SYSCALL_MASK, x86.MSR_FS_BASE, x86.MSR_GS_BASE, x86.MSR_KERNEL_GS_BASE, x86.MSR_TSC_AUX,
)  # fmt: skip
# Read-only: MTRRs as above; machine checks in no bank.
_CONSTANT = {_MTRR_CAP: _MTRR_CAP_VALUE, _MCG_CAP: 0}
_WRITES_IGNORED = frozenset({_BIOS_SIGN_ID, _SYSCFG, _HWCR, _NB_CFG, _LS_CFG, _DE_CFG})
# SVM is hidden: its registers do not exist, whatever a sink would say.
_HIDDEN = frozenset({x86.MSR_VM_CR, x86.MSR_VM_HSAVE_PA})


class GuestGp(Exception):
    """The access is a #GP(0)."""


def allow_native(scratch: Scratch) -> None:
    """Open the permission map for what the library handles itself."""
    for index in _NATIVE:
        scratch.allow_msr(index, MSR_READ | MSR_WRITE)
    scratch.allow_msr(x86.MSR_EFER, MSR_READ)


class MsrBank:
    """The engine's registers of one vCPU, but TSC and EFER, which are its caller's."""

    KEPT = ("_values",)

    def __init__(self, index: int, mtrr_def_type: int, *, boot: bool) -> None:
        self.index = index
        self._values = {
            x86.MSR_APIC_BASE: _APIC_BASE | _APIC_ENABLE | (_APIC_BSP if boot else 0),
            x86.MSR_PAT: _PAT_RESET,
            x86.MSR_MTRR_DEF_TYPE: mtrr_def_type,
            _MISC_ENABLE: 1,  # fast strings
            _BIOS_SIGN_ID: 0,
            _MCG_STATUS: 0,
            _SYSCFG: 0,
            _HWCR: _HWCR_TSC_FREQ_SEL,
            _NB_CFG: 0,
            _LS_CFG: 0,
            _DE_CFG: _DE_CFG_LFENCE_SERIALISES,
            **dict.fromkeys(_MTRR_FIXED, 0),
            **dict.fromkeys(_MTRR_VARIABLE, 0),
        }

    @property
    def mtrr_def_type(self) -> int:
        """MSR 0x2ff."""
        return self._values[x86.MSR_MTRR_DEF_TYPE]

    def read(self, index: int) -> int | None:
        """Return the value, or None when the sink is to be asked. Raises GuestGp."""
        if index in _HIDDEN:
            raise GuestGp
        if index in _CONSTANT:
            return _CONSTANT[index]
        return self._values.get(index)

    def write(self, index: int, value: int) -> bool:
        """Store a value; False when the sink is to be asked. Raises GuestGp."""
        if index in _HIDDEN or index in _CONSTANT:
            raise GuestGp
        if index not in self._values:
            return False
        check = _CHECKS.get(index)
        if check is not None and not check(value, self._values[index]):
            raise GuestGp
        if index in _MTRR_VARIABLE and not _valid_variable(index, value):
            raise GuestGp
        if index in _MTRR_FIXED and not _all_memory_types(value):
            raise GuestGp
        if index not in _WRITES_IGNORED:
            self._values[index] = value
        return True


def check_efer(value: int, efer: int, cr0: int) -> int:
    """Return the EFER a write results in. Raises GuestGp for reserved bits, SVME, and LME while paging is on."""
    if value & ~(_EFER_WRITABLE | x86.EFER_LMA):
        raise GuestGp
    if cr0 & x86.CR0_PG and (value ^ efer) & x86.EFER_LME:
        raise GuestGp
    return value & _EFER_WRITABLE | efer & x86.EFER_LMA


def _all_memory_types(value: int, also: int = 0) -> bool:
    return all(byte in _MEMORY_TYPES or byte == also for byte in value.to_bytes(8, "little"))


def _valid_variable(index: int, value: int) -> bool:
    if value >> _MAXPHYADDR:
        return False
    return not value & 0x7FF if index & 1 else not value & 0xF00 and value & 0xFF in _MEMORY_TYPES


def _valid_pat(value: int, _old: int) -> bool:
    return _all_memory_types(value, _UC_MINUS)


def _valid_def_type(value: int, _old: int) -> bool:
    return not value & ~0xCFF and value & 0xFF in _MEMORY_TYPES


def _valid_apic_base(value: int, old: int) -> bool:
    # The BSP bit is read-only; x2APIC mode (bit 10) is hidden; the model behind the MMIO does not move.
    return value & ~_APIC_ENABLE == old & ~_APIC_ENABLE


_CHECKS: dict[int, Callable[[int, int], bool]] = {
    x86.MSR_PAT: _valid_pat,
    x86.MSR_MTRR_DEF_TYPE: _valid_def_type,
    x86.MSR_APIC_BASE: _valid_apic_base,
}
