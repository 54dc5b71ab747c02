"""The first processor's state at the kernel's entry."""

from __future__ import annotations

from pvh.abi import x86
from pvh.build.cpu_state import GPR_NAMES, CpuState, SegmentRegister
from pvh.hints import Any
from pvh.plan.record import Plan
from pvh.record import replace

_FLAT_LIMIT = 0xFFFFFFFF
_CODE = SegmentRegister(limit=_FLAT_LIMIT, attributes=0xC9B)  # 4 KiB units, 32 bits, present, execute/read, accessed
_DATA = SegmentRegister(limit=_FLAT_LIMIT, attributes=0xC93)  # the same, read/write
_TASK = SegmentRegister(limit=0x67, attributes=0x8B)  # present, busy 32-bit TSS of the least size


def entry_state(plan: Plan) -> CpuState:
    """Return what vCPU 0 starts with: every bit xen/docs/misc/pvh.pandoc promises, libxenguest's values elsewhere.

    tools/libs/guest/xg_dom_x86.c, vcpu_hvm, leaves the selectors, FS, GS, LDTR, the table registers and the other
    general registers 0. Draft C asked for a TR limit of 0xff, which its author corrected in the thread: it is 0x67 for
    every revision, as is SS, flat like DS and ES. Paging is off, so plan.entry and start_info's paddr are also linear.
    A variation has other values where none are promised.
    """
    gprs = [0] * 16
    gprs[3] = plan.start_info.paddr  # EBX
    state = CpuState(
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
    registers = plan.options.variation.registers
    return _varied(state, registers) if registers else state


def _varied(state: CpuState, registers: tuple[tuple[str, int], ...]) -> CpuState:
    """Return the state with what a variation has otherwise (plan/variation.py)."""
    gprs, fields = list(state.gprs), dict[str, Any]()
    for name, value in registers:
        register, _, part = name.partition(".")
        if register in GPR_NAMES:
            gprs[GPR_NAMES.index(register)] = value
        elif register == "msr":
            fields["msrs"] = (*fields.get("msrs", ()), (int(part, 16), value))
        elif part:
            fields[register] = replace(fields.get(register, getattr(state, register)), **{part: value})
        else:
            fields[register] = value | fields.get("rflags", state.rflags) if register == "rflags" else value
    return replace(state, gprs=tuple(gprs), **fields)
