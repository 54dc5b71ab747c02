"""CpuState: the architectural state of one processor, as an engine loads and reads it."""

from __future__ import annotations

from pvh.abi import x86
from pvh.record import dataclass


@dataclass(frozen=True, slots=True)
class SegmentRegister:
    """A segment register with its hidden part.

    base linear; limit in bytes (already scaled); attributes packed as Xen's ar (abi/x86.py), 0 = null, unusable.
    """

    selector: int = 0
    base: int = 0
    limit: int = 0
    attributes: int = 0

    @property
    def dpl(self) -> int:
        """Descriptor privilege level."""
        return self.attributes >> 5 & 3


@dataclass(frozen=True, slots=True)
class TableRegister:
    """GDTR or IDTR: linear base, limit in bytes."""

    base: int = 0
    limit: int = 0


GPR_NAMES = (
    "rax",
    "rcx",
    "rdx",
    "rbx",
    "rsp",
    "rbp",
    "rsi",
    "rdi",
    "r8",
    "r9",
    "r10",
    "r11",
    "r12",
    "r13",
    "r14",
    "r15",
)


LOADABLE_MSRS = (
    x86.MSR_STAR, x86.MSR_LSTAR, x86.MSR_CSTAR, x86.MSR_SYSCALL_MASK, x86.MSR_KERNEL_GS_BASE,
    x86.MSR_SYSENTER_CS, x86.MSR_SYSENTER_ESP, x86.MSR_SYSENTER_EIP,
)  # fmt: skip
"""What has no effect before an instruction that its owner chooses to execute. All are 0 after a reset."""


@dataclass(frozen=True, slots=True)
class CpuState:
    """Registers of one vCPU. gprs in encoding order (GPR_NAMES), each 64 bits.

    mtrr_def_type is MSR 0x2ff: 0x806 is write-back by default and enabled, what libxenguest gives every vCPU.
    msrs are those, number and value, that an engine is to load with other than their reset values, of LOADABLE_MSRS;
    none are read back.

    >>> with pvh.boot(pvh.demo_path(), paused=True) as guest:
    ...     cpu = guest.registers()
    >>> cpu.bits, cpu.cpl, cpu.rip == guest.plan.entry
    (32, 0, True)
    """

    gprs: tuple[int, ...] = (0,) * 16
    rip: int = 0
    rflags: int = x86.RFLAGS_ONE
    cs: SegmentRegister = SegmentRegister()
    ds: SegmentRegister = SegmentRegister()
    es: SegmentRegister = SegmentRegister()
    ss: SegmentRegister = SegmentRegister()
    fs: SegmentRegister = SegmentRegister()
    gs: SegmentRegister = SegmentRegister()
    tr: SegmentRegister = SegmentRegister()
    ldtr: SegmentRegister = SegmentRegister()
    gdtr: TableRegister = TableRegister()
    idtr: TableRegister = TableRegister()
    cr0: int = x86.CR0_ET
    cr2: int = 0
    cr3: int = 0
    cr4: int = 0
    efer: int = 0
    dr0: int = 0
    dr1: int = 0
    dr2: int = 0
    dr3: int = 0
    dr6: int = 0xFFFF0FF0
    dr7: int = 0x400
    mtrr_def_type: int = x86.MTRR_WRITE_BACK
    msrs: tuple[tuple[int, int], ...] = ()

    @property
    def debug_registers(self) -> tuple[int, int, int, int, int, int]:
        """DR0 to DR3, linear addresses, then DR6 and DR7.

        >>> with pvh.boot(pvh.demo_path(), paused=True) as guest:
        ...     guest.registers().debug_registers == (0, 0, 0, 0, 0xffff0ff0, 0x400)
        True
        """
        return self.dr0, self.dr1, self.dr2, self.dr3, self.dr6, self.dr7

    @property
    def cpl(self) -> int:
        """Current privilege level: SS.DPL in protected mode, 3 in VM86, 0 in real mode."""
        if not self.cr0 & x86.CR0_PE:
            return 0
        return 3 if self.rflags & x86.RFLAGS_VM else self.ss.dpl

    @property
    def bits(self) -> int:
        """Width of the code being executed: 64 in 64-bit mode, else 32 or 16 by CS.D."""
        if self.efer & x86.EFER_LMA and self.cs.attributes & x86.AR_L:
            return 64
        return 32 if self.cs.attributes & x86.AR_DB else 16

    @property
    def linear_rip(self) -> int:
        """Linear address of the next instruction."""
        if self.bits == 64:
            return self.rip
        return (self.cs.base + self.rip) & 0xFFFFFFFF
