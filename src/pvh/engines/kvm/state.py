"""CpuState to and from what KVM calls regs, sregs, debugregs and MSRs.

Layouts: struct kvm_regs, kvm_sregs, kvm_segment, kvm_dtable, kvm_debugregs (linux/arch/x86/include/uapi/asm/kvm.h).
"""

from __future__ import annotations

from mmap import mmap
from struct import Struct

from pvh.abi import x86
from pvh.build.cpu_state import LOADABLE_MSRS, CpuState, SegmentRegister, TableRegister
from pvh.engines.kvm import ioctl as kvm
from pvh.errors import EngineError

Buffer = bytes | bytearray | mmap

# kvm_regs order: rax rbx rcx rdx rsi rdi rsp rbp r8 ... r15 rip rflags; CpuState.gprs is in encoding order.
REGS = Struct("<18Q")
_ENCODING_TO_KVM = (0, 2, 3, 1, 6, 7, 4, 5, *range(8, 16))
_KVM_TO_ENCODING = (0, 3, 1, 2, 6, 7, 4, 5, *range(8, 16))

_SEGMENT = Struct("<QIHBBBBBBBBBx")  # base, limit, selector, type, present, dpl, db, s, l, g, avl, unusable
_TABLE = Struct("<QH6x")
_CONTROL = Struct("<7Q32x")  # cr0, cr2, cr3, cr4, cr8, efer, apic_base, interrupt bitmap
_SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldtr")
_TABLES_AT = len(_SEGMENTS) * _SEGMENT.size
_CONTROL_AT = _TABLES_AT + 2 * _TABLE.size
SREGS_SIZE = _CONTROL_AT + _CONTROL.size
_RUNNING_CODE = Struct("<Q9xBxB116xB87xQ32xQ")  # of kvm_sregs: CS.base, CS.db, CS.l, SS.dpl, CR0, EFER
Code = tuple[int, int, int, bool]  # its width, privilege level, CS base; whether paging is on

_DEBUGREGS = Struct("<4QQQ72x")  # db0-3, dr6, dr7

# MSRs that CpuState does not hold, with their values after RESET (Intel SDM vol. 3, table 10-1; PAT: 12.12.4).
_RESET_MSRS = (*((index, 0) for index in LOADABLE_MSRS), (x86.MSR_PAT, 0x0007040600070406))


def _pack_segment(segment: SegmentRegister) -> bytes:
    ar = segment.attributes
    usable = 1 if ar else 0
    return _SEGMENT.pack(
        segment.base,
        segment.limit,
        segment.selector,
        ar & x86.AR_TYPE,
        ar >> 7 & 1,
        ar >> 5 & 3,
        ar >> 10 & 1,
        ar >> 4 & 1,
        ar >> 9 & 1,
        ar >> 11 & 1,
        ar >> 8 & 1,
        1 - usable,
    )


def _unpack_segment(sregs: Buffer, index: int) -> SegmentRegister:
    fields = _SEGMENT.unpack_from(sregs, index * _SEGMENT.size)
    base, limit, selector, kind, present, dpl, db, s, long_, g, avl, unusable = fields
    ar = kind | s << 4 | dpl << 5 | present << 7 | avl << 8 | long_ << 9 | db << 10 | g << 11
    return SegmentRegister(selector, base, limit, 0 if unusable else ar)


def pack_regs(state: CpuState) -> bytes:
    """Return struct kvm_regs."""
    return pack_general(state.gprs, state.rip, state.rflags)


def pack_general(gprs: tuple[int, ...], rip: int, rflags: int) -> bytes:
    """Return struct kvm_regs of general registers in CpuState's order."""
    return REGS.pack(*(gprs[i] for i in _KVM_TO_ENCODING), rip, rflags)


def pack_sregs(state: CpuState, apic_base: int) -> bytes:
    """Return struct kvm_sregs, with nothing pending and task priority 0."""
    segments = b"".join(_pack_segment(getattr(state, name)) for name in _SEGMENTS)
    tables = _TABLE.pack(state.gdtr.base, state.gdtr.limit) + _TABLE.pack(state.idtr.base, state.idtr.limit)
    control = _CONTROL.pack(state.cr0, state.cr2, state.cr3, state.cr4, 0, state.efer, apic_base)
    return segments + tables + control


def apic_base(sregs: Buffer) -> int:
    """Return IA32_APIC_BASE out of struct kvm_sregs."""
    return int(_CONTROL.unpack_from(sregs, _CONTROL_AT)[6])


def running_code(buffer: Buffer, at: int) -> Code:
    """Return what code runs, out of struct kvm_sregs at an offset. In 64-bit mode its base is 0, whatever CS holds."""
    base, db, long_, ss_dpl, cr0, efer = _RUNNING_CODE.unpack_from(buffer, at)
    cpl = ss_dpl if cr0 & x86.CR0_PE else 0
    if long_ and efer & x86.EFER_LMA:
        return 64, cpl, 0, True
    return 32 if db else 16, cpl, base, cr0 & x86.CR0_PG != 0


def _write_msrs(fd: int, msrs: tuple[tuple[int, int], ...]) -> None:
    entries = b"".join(kvm.MSR_ENTRY.pack(index, 0, value) for index, value in msrs)
    done = kvm.must("the MSRs", fd, kvm.SET_MSRS, bytearray(kvm.MSR_LIST_HEADER.pack(len(msrs), 0) + entries))
    if done != len(msrs):
        raise EngineError(f"KVM refused to set MSR {msrs[done][0]:#x} to {msrs[done][1]:#x}")


def read_msr(fd: int, index: int) -> int:
    """Return one MSR of a vCPU that is not inside KVM_RUN."""
    request = bytearray(kvm.MSR_LIST_HEADER.pack(1, 0) + kvm.MSR_ENTRY.pack(index, 0, 0))
    if kvm.must("reading an MSR", fd, kvm.GET_MSRS, request) != 1:
        raise EngineError(f"KVM refused to read MSR {index:#x}")
    return int(kvm.MSR_ENTRY.unpack_from(request, kvm.MSR_LIST_HEADER.size)[2])


def write(fd: int, state: CpuState, *, fresh: bool) -> None:
    """Load a vCPU. fresh: it never ran, so what the record does not hold has its reset value already."""
    sregs = bytearray(SREGS_SIZE)
    kvm.call(fd, kvm.GET_SREGS, sregs)
    kvm.must("the segment and control registers", fd, kvm.SET_SREGS, pack_sregs(state, apic_base(sregs)))
    kvm.must("the general registers", fd, kvm.SET_REGS, pack_regs(state))
    if not fresh or state.debug_registers != CpuState().debug_registers:
        kvm.must("the debug registers", fd, kvm.SET_DEBUGREGS, _DEBUGREGS.pack(*state.debug_registers))
    msrs = ((x86.MSR_MTRR_DEF_TYPE, state.mtrr_def_type), *state.msrs)
    _write_msrs(fd, msrs if fresh else _RESET_MSRS + msrs)
    if not fresh:
        _reset_rest(fd)
    kvm.must("the run state", fd, kvm.SET_MP_STATE, kvm.U32.pack(kvm.MP_STATE_RUNNABLE))


def enable_caches(fd: int) -> None:
    """Clear CR0.CD and NW of a fresh vCPU and enable its MTRRs, write-back by default, as libxenguest does for each.

    An INIT keeps both (Intel SDM vol. 3, table 10-1).
    """
    sregs = bytearray(SREGS_SIZE)
    kvm.must("reading the control registers", fd, kvm.GET_SREGS, sregs)
    cr0 = kvm.U64.unpack_from(sregs, _CONTROL_AT)[0] & ~(x86.CR0_CD | x86.CR0_NW)
    kvm.U64.pack_into(sregs, _CONTROL_AT, cr0)
    kvm.must("the control registers", fd, kvm.SET_SREGS, sregs)
    _write_msrs(fd, ((x86.MSR_MTRR_DEF_TYPE, x86.MTRR_WRITE_BACK),))


def _reset_rest(fd: int) -> None:
    """Give x87/SSE, XCR0 and pending events their reset values (Intel SDM vol. 3, table 10-1)."""
    kvm.must("the FPU state", fd, kvm.SET_FPU, Struct("<128xHHBBHQQ256xI4x").pack(0x37F, 0, 0, 0, 0, 0, 0, 0x1F80))
    kvm.must("XCR0", fd, kvm.SET_XCRS, Struct("<IIIIQ368x").pack(1, 0, 0, 0, 1))
    kvm.must("the pending events", fd, kvm.SET_VCPU_EVENTS, bytes(64))


def read(fd: int) -> CpuState:
    """Read a vCPU that is not inside KVM_RUN."""
    regs, sregs, debug = bytearray(REGS.size), bytearray(SREGS_SIZE), bytearray(_DEBUGREGS.size)
    kvm.must("reading the general registers", fd, kvm.GET_REGS, regs)
    kvm.must("reading the segment and control registers", fd, kvm.GET_SREGS, sregs)
    kvm.must("reading the debug registers", fd, kvm.GET_DEBUGREGS, debug)
    values = REGS.unpack(regs)
    cr0, cr2, cr3, cr4, _, efer, _ = _CONTROL.unpack_from(sregs, _CONTROL_AT)
    dr0, dr1, dr2, dr3, dr6, dr7 = _DEBUGREGS.unpack(debug)
    return CpuState(
        gprs=tuple(values[i] for i in _ENCODING_TO_KVM),
        rip=values[16],
        rflags=values[17],
        **{name: _unpack_segment(sregs, index) for index, name in enumerate(_SEGMENTS)},
        gdtr=TableRegister(*_TABLE.unpack_from(sregs, _TABLES_AT)),
        idtr=TableRegister(*_TABLE.unpack_from(sregs, _TABLES_AT + _TABLE.size)),
        cr0=cr0,
        cr2=cr2,
        cr3=cr3,
        cr4=cr4,
        efer=efer,
        dr0=dr0,
        dr1=dr1,
        dr2=dr2,
        dr3=dr3,
        dr6=dr6,
        dr7=dr7,
        mtrr_def_type=read_msr(fd, x86.MSR_MTRR_DEF_TYPE),
        msrs=(),
    )
