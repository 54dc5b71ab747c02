"""The first processor's state at the kernel's entry."""

from __future__ import annotations

from pvh.abi import x86
from pvh.build.cpu_state import CpuState, SegmentRegister
from pvh.plan.record import Plan

_FLAT_LIMIT = 0xFFFFFFFF
_CODE = SegmentRegister(limit=_FLAT_LIMIT, attributes=0xC9B)  # 4 KiB units, 32 bits, present, execute/read, accessed
_DATA = SegmentRegister(limit=_FLAT_LIMIT, attributes=0xC93)  # the same, read/write
_TASK = SegmentRegister(limit=0x67, attributes=0x8B)  # present, busy 32-bit TSS of the least size


def entry_state(plan: Plan) -> CpuState:
    """Return what vCPU 0 starts with: every bit xen/docs/misc/pvh.pandoc promises, libxenguest's values elsewhere.

    tools/libs/guest/xg_dom_x86.c, vcpu_hvm, leaves the selectors, FS, GS, LDTR, the table registers and the other
    general registers 0. Draft C asked for a TR limit of 0xff, which its author corrected in the thread: it is 0x67 for
    every revision, as is SS, flat like DS and ES. Paging is off, so plan.entry and start_info's paddr are also linear.
    """
    gprs = [0] * 16
    gprs[3] = plan.start_info.paddr  # EBX
    return CpuState(
        gprs=tuple(gprs),
        rip=plan.entry,
        rflags=x86.RFLAGS_ONE,
        cr0=x86.CR0_PE | x86.CR0_ET,
        cs=_CODE,
        ds=_DATA,
        es=_DATA,
        ss=_DATA,
        tr=_TASK,
    )
