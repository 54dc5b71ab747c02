"""Segment descriptors in the guest's tables (Intel SDM vol. 3, 3.4.5 and 7.2)."""

from __future__ import annotations

from pvh.abi import x86
from pvh.build.cpu_state import SegmentRegister
from pvh.engines.emulator.paging import GuestFault, LinearMemory
from pvh.engines.emulator.registers import Registers

_ACCESSED = 1
_CODE = 8
_CONFORMING = 4
_WRITABLE = 2


def unpack(selector: int, descriptor: int) -> SegmentRegister:
    """Turn the 8 bytes of a descriptor into a segment register."""
    low, high = descriptor & 0xFFFFFFFF, descriptor >> 32
    base = low >> 16 | (high & 0xFF) << 16 | high & 0xFF000000
    limit = low & 0xFFFF | high & 0xF0000
    attributes = high >> 8 & 0xFF | high >> 12 & 0xF00
    if attributes & x86.AR_G:
        limit = limit << 12 | 0xFFF
    return SegmentRegister(selector, base, limit, attributes)


def load(registers: Registers, memory: LinearMemory, selector: int, fault: int, external: int) -> SegmentRegister:
    """Return the descriptor a selector names; raise GuestFault(fault) with the selector as error code.

    external is 1 where the event being delivered was not caused by the program.
    """
    error = selector & 0xFFFC | external
    if selector & 4:
        ldtr = registers.ldtr
        base, limit = ldtr.base, ldtr.limit if ldtr.attributes & x86.AR_P else -1
    else:
        base, limit = registers.gdtr.base, registers.gdtr.limit
    if selector | 7 > limit:
        raise GuestFault(fault, error)
    return unpack(selector, memory.read_int(base + (selector & 0xFFF8), 8))


def is_code(segment: SegmentRegister) -> bool:
    """Return whether it is a code segment."""
    return bool(segment.attributes & x86.AR_S and segment.attributes & _CODE)


def is_conforming(segment: SegmentRegister) -> bool:
    """Return whether a code segment takes its caller's privilege."""
    return bool(segment.attributes & _CONFORMING)


def is_writable_data(segment: SegmentRegister) -> bool:
    """Return whether it can be a stack."""
    return segment.attributes & (x86.AR_S | _CODE | _WRITABLE) == x86.AR_S | _WRITABLE


def handler_code(
    registers: Registers, memory: LinearMemory, selector: int, external: int
) -> tuple[SegmentRegister, int]:
    """Return the code segment of a gate and the CPL it runs at; raise GuestFault (SDM vol. 3, 6.12.1)."""
    if not selector & 0xFFFC:
        raise GuestFault(x86.GP, external)
    code = load(registers, memory, selector, x86.GP, external)
    error = selector & 0xFFFC | external
    cpl = registers.cpl
    if not is_code(code) or code.dpl > cpl:
        raise GuestFault(x86.GP, error)
    if registers.long_mode and code.attributes & (x86.AR_L | x86.AR_DB) != x86.AR_L:
        raise GuestFault(x86.GP, error)
    if not code.attributes & x86.AR_P:
        raise GuestFault(x86.NP, error)
    new_cpl = cpl if is_conforming(code) else code.dpl
    attributes = code.attributes | _ACCESSED
    return SegmentRegister(selector & 0xFFFC | new_cpl, code.base, code.limit, attributes), new_cpl


def stack(registers: Registers, memory: LinearMemory, selector: int, cpl: int, external: int) -> SegmentRegister:
    """Return the stack segment a TSS names for a privilege level; raise GuestFault."""
    if not selector & 0xFFFC:
        raise GuestFault(x86.TS, external)
    error = selector & 0xFFFC | external
    segment = load(registers, memory, selector, x86.TS, external)
    if selector & 3 != cpl or segment.dpl != cpl or not is_writable_data(segment):
        raise GuestFault(x86.TS, error)
    if not segment.attributes & x86.AR_P:
        raise GuestFault(x86.SS, error)
    return segment
