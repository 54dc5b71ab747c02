"""vcpu_hvm_context: what Xen accepts of it, and the processor state it becomes.

Source: xen/arch/x86/hvm/domain.c, check_segment and arch_set_info_hvm_guest. Every rule below is a function that says
whether it is broken; any broken rule gives -EINVAL. What Xen lets pass hardware need not take: see vcpu_entry.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from pvh.abi import vcpu_context as abi
from pvh.abi import x86
from pvh.abi.errno import EINVAL
from pvh.build.cpu_state import CpuState, SegmentRegister
from pvh.engines.engine import CpuidTable
from pvh.record import dataclass, replace
from pvh.xen.vcpu_features import cr4_bits, efer_bits

_CODE = 1 << 3  # in a code or data segment's type
_READABLE = _WRITABLE = 1 << 1  # of a code, of a data segment
_ACCESSED = 1 << 0
_BUSY = 1 << 1  # in a TSS's type
_TSS_32_BUSY = 0xB
_RFLAGS = 0x3F7FD5  # Xen's X86_EFLAGS_ALL: every flag that is one
_CANONICAL_TOP = (1 << 17) - 1  # bits 63:47 of an upper-half address: Xen takes 48 bits for everybody

# What INITIALISE does not touch is as construct_vmcb made it (xen/arch/x86/hvm/svm/vmcb.c): flat FS and GS, no LDT,
# and tables of no length.
_FLAT = SegmentRegister(limit=0xFFFFFFFF, attributes=0xC93)
_UNTOUCHED = CpuState(fs=_FLAT, gs=_FLAT)
_CODE_64 = SegmentRegister(limit=0xFFFFFFFF, attributes=0xA9B)
_TASK_64 = SegmentRegister(limit=0x67, attributes=0x8B)


@dataclass(frozen=True, slots=True)
class Context:
    """The registers of either mode. segments: cs ds ss es tr with accessed or busy set; limits and G as given."""

    gprs: tuple[int, ...]
    ip: int
    flags: int
    cr0: int
    cr3: int
    cr4: int
    efer: int
    segments: tuple[SegmentRegister, ...]
    pads: tuple[int, ...] = ()


# Of any segment


def undefined_attribute(segment: SegmentRegister) -> bool:
    """Bits 12 to 15 are for nothing."""
    return segment.attributes >> 12 != 0


def not_present(segment: SegmentRegister) -> bool:
    """Every segment is present; DS and ES may be null instead, and null is attributes of 0."""
    return not segment.attributes & x86.AR_P


# Of CS, DS, SS, ES


def system(segment: SegmentRegister) -> bool:
    """S is set in a code or data segment."""
    return not segment.attributes & x86.AR_S


def data_for_code(cs: SegmentRegister) -> bool:
    """CS is code."""
    return not cs.attributes & _CODE


def code_for_stack(ss: SegmentRegister) -> bool:
    """SS is data."""
    return bool(ss.attributes & _CODE)


def read_only_stack(ss: SegmentRegister) -> bool:
    """SS can be written."""
    return not ss.attributes & _WRITABLE


def unreadable_data(segment: SegmentRegister) -> bool:
    """DS and ES may be code, if it can be read."""
    return bool(segment.attributes & _CODE) and not segment.attributes & _READABLE


# Of TR


def not_system(tr: SegmentRegister) -> bool:
    """S is clear in a system segment."""
    return bool(tr.attributes & x86.AR_S)


def other_than_32_bit_tss(tr: SegmentRegister) -> bool:
    """TR is a busy 32-bit TSS: an available one was made busy, a 16-bit one or a gate is refused."""
    return tr.attributes & x86.AR_TYPE != _TSS_32_BUSY


# Of mode 32B as a whole


def padding_used(context: Context) -> bool:
    """pad1 and pad2 are 0."""
    return any(context.pads)


def ip_beyond_limit(context: Context) -> bool:
    """EIP is inside CS, whose limit counts in pages here, and here only, if G is set (and wraps at 32 bits)."""
    cs = context.segments[0]
    limit = (cs.limit << 12 & 0xFFFFFFFF) | 0xFFF if cs.attributes & x86.AR_G else cs.limit
    return context.ip > limit


def stack_of_other_privilege(context: Context) -> bool:
    """SS.DPL is CS.DPL."""
    return context.segments[2].dpl != context.segments[0].dpl


def data_beneath_privilege(context: Context) -> bool:
    """DS.DPL is at most CS.DPL; that of a null segment is 0."""
    return context.segments[1].dpl > context.segments[0].dpl


def extra_beneath_privilege(context: Context) -> bool:
    """ES.DPL likewise."""
    return context.segments[3].dpl > context.segments[0].dpl


def active_but_not_enabled(context: Context) -> bool:
    """EFER.LMA comes with EFER.LME."""
    return bool(context.efer & x86.EFER_LMA) and not context.efer & x86.EFER_LME


# Of mode 64B


def ip_not_canonical(context: Context) -> bool:
    """RIP's bits 63:47 are all the same."""
    return context.ip >> 47 not in (0, _CANONICAL_TOP)


def paging_off(context: Context) -> bool:
    """CR0.PG is set."""
    return not context.cr0 & x86.CR0_PG


def pae_off(context: Context) -> bool:
    """CR4.PAE is set."""
    return not context.cr4 & x86.CR4_PAE


def long_mode_off(context: Context) -> bool:
    """EFER.LME is set."""
    return not context.efer & x86.EFER_LME


SegmentRule = Callable[[SegmentRegister], bool]

ANY_SEGMENT: tuple[SegmentRule, ...] = (undefined_attribute, not_present)
CS_RULES: tuple[SegmentRule, ...] = (*ANY_SEGMENT, system, data_for_code)
SS_RULES: tuple[SegmentRule, ...] = (*ANY_SEGMENT, system, code_for_stack, read_only_stack)
DATA_RULES: tuple[SegmentRule, ...] = (*ANY_SEGMENT, system, unreadable_data)
TR_RULES: tuple[SegmentRule, ...] = (*ANY_SEGMENT, not_system, other_than_32_bit_tss)
SEGMENT_RULES = (CS_RULES, DATA_RULES, SS_RULES, DATA_RULES, TR_RULES)

RULES_32B: tuple[Callable[[Context], bool], ...] = (
    padding_used,
    ip_beyond_limit,
    stack_of_other_privilege,
    data_beneath_privilege,
    extra_beneath_privilege,
    active_but_not_enabled,
)
RULES_64B: tuple[Callable[[Context], bool], ...] = (ip_not_canonical, paging_off, pae_off, long_mode_off)


def parse(raw: bytes, cpuid: CpuidTable) -> CpuState | int:
    """Return the state that 128 bytes of vcpu_hvm_context stand for, exactly as Xen keeps it, or -EINVAL.

    Selectors are 0; EFER.LMA follows EFER.LME whatever CR0.PG is. CR0 and CR3 are as given: Xen looks at neither.
    cpuid: the vCPU's, which decides what CR4 and EFER may be.
    """
    mode, pad = struct.unpack_from(abi.HEAD, raw)
    read = _READERS.get(mode)
    context = read(raw) if read and not pad else None
    if context is None:
        return -EINVAL
    efer = context.efer | (x86.EFER_LMA if context.efer & x86.EFER_LME else 0)
    if context.cr4 & ~cr4_bits(cpuid) or efer & ~efer_bits(cpuid):
        return -EINVAL
    cs, ds, ss, es, tr = map(_kept, context.segments)
    return replace(
        _UNTOUCHED,
        gprs=(*context.gprs, *(0,) * 8),
        rip=context.ip,
        rflags=context.flags & _RFLAGS | x86.RFLAGS_ONE,
        cr0=context.cr0,
        cr3=context.cr3,
        cr4=context.cr4,
        efer=efer,
        cs=cs,
        ds=ds,
        ss=ss,
        es=es,
        tr=tr,
    )


def _read_32b(raw: bytes) -> Context | None:
    values = struct.unpack_from(abi.X86_32, raw, abi.UNION)
    ip, flags, cr0, cr3, cr4, pad1, efer = values[8:15]
    bases, limits, attributes, pad2 = values[15:20], values[20:25], values[25:30], values[30:]
    segments = tuple(
        SegmentRegister(0, base, limit, _marked(ar, _BUSY if rules is TR_RULES else _ACCESSED))
        for base, limit, ar, rules in zip(bases, limits, attributes, SEGMENT_RULES, strict=True)
    )
    context = Context(values[:8], ip, flags, cr0, cr3, cr4, efer, segments, (pad1, *pad2))
    broken = any(_refused(segment, rules) for segment, rules in zip(segments, SEGMENT_RULES, strict=True))
    return None if broken or any(rule(context) for rule in RULES_32B) else context


def _read_64b(raw: bytes) -> Context | None:
    *gprs, ip, flags, cr0, cr3, cr4, efer = struct.unpack_from(abi.X86_64, raw, abi.UNION)
    segments = (_CODE_64, _FLAT, _FLAT, _FLAT, _TASK_64)
    context = Context(tuple(gprs), ip, flags, cr0, cr3, cr4, efer, segments)
    return None if any(rule(context) for rule in RULES_64B) else context


_READERS: dict[int, Callable[[bytes], Context | None]] = {abi.MODE_32B: _read_32b, abi.MODE_64B: _read_64b}


def _marked(attributes: int, mark: int) -> int:
    """Mark a present segment as accessed, or as busy."""
    return attributes | mark if attributes & x86.AR_P else attributes


def _refused(segment: SegmentRegister, rules: tuple[SegmentRule, ...]) -> bool:
    may_be_null = rules is DATA_RULES
    return not (may_be_null and not segment.attributes) and any(rule(segment) for rule in rules)


def _kept(segment: SegmentRegister) -> SegmentRegister:
    """Return a segment with G as Xen sets it: the limit is in bytes, G says that it does not fit 20 bits.

    hvm_set_segment_register (xen/arch/x86/hvm/hvm.c), which leaves a segment that is not present alone.
    """
    if not segment.attributes & x86.AR_P:
        return segment
    granular = x86.AR_G if segment.limit >> 20 else 0
    return replace(segment, attributes=segment.attributes & ~x86.AR_G | granular)
