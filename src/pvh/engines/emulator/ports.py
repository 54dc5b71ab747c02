"""IN and OUT: may the program, and how does the engine get out of the middle of one.

The library calls back from inside the instruction, RIP on it, and knows no way not to finish it; it checks no
permission either. native.py has hooks that can leave it as an exception would. Sources: Intel SDM vol. 1, 19.5; AMD APM
vol. 3, IN and OUT.
"""

from __future__ import annotations

from pvh.abi import x86
from pvh.engines.emulator.decode import decode
from pvh.engines.emulator.exceptions import Event, fault
from pvh.engines.emulator.paging import GuestFault, LinearMemory
from pvh.engines.emulator.registers import RAX, Registers
from pvh.record import dataclass

_TSS_TYPES = frozenset({9, 11})
_IO_MAP_BASE = 0x66
_LENGTHS = {0xE4: 2, 0xE5: 2, 0xE6: 2, 0xE7: 2, 0xEC: 1, 0xED: 1, 0xEE: 1, 0xEF: 1}


@dataclass(frozen=True, slots=True)
class Left:
    """An access that was left: an event to deliver, or (where None) an instruction of a length that is over.

    rcx is the register's value, which leaving destroys; rax its new one.
    """

    event: Event | None
    length: int
    rcx: int
    rax: int


def forbidden(registers: Registers, memory: LinearMemory, port: int, size: int) -> Event | None:
    """Return the event by which the program at the snapshot's CPL is kept from a port, or None."""
    cpl = registers.cpl
    if cpl == 0:
        return None
    flags = registers.flags
    if cpl <= flags >> 12 & 3 and not flags & x86.RFLAGS_VM:
        return None
    tr = registers.tr
    if tr.attributes & x86.AR_TYPE not in _TSS_TYPES or tr.limit < _IO_MAP_BASE + 1:
        return fault(x86.GP)
    try:
        at = memory.read_int(tr.base + _IO_MAP_BASE, 2) + port // 8
        if at + 1 > tr.limit:
            return fault(x86.GP)
        denied = memory.read_int(tr.base + at, 2) >> port % 8 & (1 << size) - 1
    except GuestFault as problem:
        return fault(problem.vector, problem.error, problem.cr2)
    return fault(x86.GP) if denied else None


def finished(registers: Registers, memory: LinearMemory, size: int, value: int | None) -> Left | None:
    """Return how to leave behind an IN (with its value) or OUT of the snapshot; None for a step of a string form."""
    instruction = decode(memory.peek(registers.linear_rip, 15), registers.bits)
    length = _LENGTHS.get(instruction.code[0]) if instruction.code else None
    if length is None:
        return None
    rax = registers.gpr(RAX)
    if value is not None:
        kept = 0 if size == 4 else rax & ~((1 << 8 * size) - 1)
        rax = kept | value & (1 << 8 * size) - 1
    return Left(None, instruction.prefixes + length, registers.gpr(1), rax)
