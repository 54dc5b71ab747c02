"""What a processor makes of a start state: Xen validates neither CR0 nor CR3, hardware does, and SIPI has its own.

On Xen a state that VM entry refuses crashes the domain (vmx_failed_vmentry, svm_vmexit_handler). The rules are those
of Intel SDM vol. 3, 27.3.1 (VT-x) and AMD APM vol. 2, 15.5.1 (SVM). Where only one vendor refuses, the row says which.
"""

from __future__ import annotations

from collections.abc import Callable

from pvh.abi import x86
from pvh.build.cpu_state import CpuState, SegmentRegister, TableRegister
from pvh.record import replace

_CR0 = (
    x86.CR0_PE | x86.CR0_MP | x86.CR0_EM | x86.CR0_TS | x86.CR0_NE | x86.CR0_WP
    | x86.CR0_AM | x86.CR0_NW | x86.CR0_CD | x86.CR0_PG
)  # fmt: skip


def _has(value: int, bits: int) -> bool:
    return value & bits == bits


REFUSALS: tuple[tuple[str, Callable[[CpuState], bool]], ...] = (
    ("CR0 has bits above 31", lambda s: s.cr0 >> 32 != 0),
    ("CR0.NW is set without CR0.CD", lambda s: s.cr0 & (x86.CR0_NW | x86.CR0_CD) == x86.CR0_NW),  # SVM
    # SVM alone knows paged real mode; KVM takes it on neither.
    ("CR0.PG is set without CR0.PE", lambda s: s.cr0 & (x86.CR0_PG | x86.CR0_PE) == x86.CR0_PG),
    ("long mode is on without CR4.PAE", lambda s: _is_long(s) and not s.cr4 & x86.CR4_PAE),
    ("CS.L and CS.D are both set in long mode", lambda s: _is_long(s) and _has(s.cs.attributes, x86.AR_L | x86.AR_DB)),
    ("CR4.PCIDE is set outside long mode", lambda s: not _is_long(s) and bool(s.cr4 & x86.CR4_PCIDE)),
    ("CR4.CET is set without CR0.WP", lambda s: bool(s.cr4 & x86.CR4_CET) and not s.cr0 & x86.CR0_WP),
    # VT-x wants every segment as virtual-8086 mode has them, and FS and GS cannot be: see vcpu_context.py.
    ("RFLAGS.VM is set", lambda s: bool(s.rflags & x86.RFLAGS_VM)),
)


def enter(state: CpuState, physical_bits: int) -> CpuState | str:
    """Return a state as the processor holds it once it is entered, or why it refuses to.

    Bits of CR0 that do not exist read 0, and ET 1. EFER.LMA is on only with paging, whatever Xen noted; outside long
    mode CS.L means nothing, and is dropped. The page tables are not looked at: what CR3 points to is found out by the
    first fetch, which ends in a triple fault if it is no table. physical_bits: MAXPHYADDR.
    """
    if state.cr3 >> physical_bits:
        return f"CR3 has bits above {physical_bits - 1}"
    for why, refuses in REFUSALS:
        if refuses(state):
            return why
    cr0 = state.cr0 & _CR0 | x86.CR0_ET
    if _is_long(state):
        return replace(state, cr0=cr0)
    cs = replace(state.cs, attributes=state.cs.attributes & ~x86.AR_L)
    return replace(state, cr0=cr0, efer=state.efer & ~x86.EFER_LMA, cs=cs)


def _is_long(state: CpuState) -> bool:
    return bool(state.efer & x86.EFER_LME and state.cr0 & x86.CR0_PG)


def sipi_state(vector: int) -> CpuState:
    """Return where a SIPI starts a processor: real mode, at the page the vector names (hvm_vcpu_reset_state)."""
    data = SegmentRegister(limit=0xFFFF, attributes=0x93)
    selector = vector << 8
    return CpuState(
        cs=SegmentRegister(selector, selector << 4, 0xFFFF, 0x9B),
        ds=data,
        es=data,
        ss=data,
        fs=data,
        gs=data,
        tr=SegmentRegister(limit=0xFFFF, attributes=0x8B),
        ldtr=SegmentRegister(limit=0xFFFF, attributes=0x82),
        gdtr=TableRegister(limit=0xFFFF),
        idtr=TableRegister(limit=0xFFFF),
    )
