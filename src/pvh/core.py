"""write_core: guest memory and registers as an ELF core, for gdb and whatever else reads cores.

The file holds the guest's RAM once, block after block and sparse, and describes it twice:

PT_LOAD          what gdb reads. p_vaddr is linear, through the page tables of the processor in the outcome, or the
                 physical address itself while paging is off; p_paddr is guest physical. Several may share bytes.
PT_PVH_RAM       each block of guest-physical memory, mapped or not (p_paddr; p_vaddr is 0). gdb ignores them.

Registers are an NT_PRSTATUS note, as Linux lays out struct elf_prstatus on x86-64 (linux/elfcore.h, asm/user_64.h),
whatever the guest's mode: rip is the register, not the linear address, which differs where CS has a base. gdb takes
all code of such a core for 64-bit code; pvh's own diagnosis disassembles by the guest's mode.
"""

from __future__ import annotations

import os
import struct
from itertools import accumulate

from pvh.abi.x86 import PAGE_SIZE
from pvh.build.cpu_state import CpuState
from pvh.build.mappings import MOST_RANGES, Mapping, mappings
from pvh.build.populated import populated
from pvh.errors import UsageError
from pvh.hints import TYPE_CHECKING
from pvh.host import FLAGS, pwrite

if TYPE_CHECKING:
    from pvh.build.ram import Block, GuestRam
    from pvh.outcome import Outcome

PT_LOAD, PT_NOTE = 1, 4
PT_PVH_RAM = 0x60505648  # of the numbers left to systems; "PVH" in its low bytes
NT_PRSTATUS = 1

_HOW = os.O_RDWR | os.O_CREAT | FLAGS
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_NOTE = struct.Struct("<III8s")
# siginfo, cursig, sigpend, sighold; pid, ppid, pgrp, sid; four timevals; user_regs_struct; fpvalid
_PRSTATUS = struct.Struct("<12sh2xQQ4i64x27Qi4x")


def claim_core(path: str) -> None:
    """Create the file, unless it is there: now is the time to find out. Raises UsageError where that cannot be."""
    try:
        os.close(os.open(path, _HOW, 0o600))
    except OSError as error:
        raise _refusal(path, error) from None


def write_core(path: str, ram: GuestRam, outcome: Outcome) -> tuple[str, ...]:
    """Write the core; return what a person should know of it, such as ranges that were left out.

    Only pages that somebody touched take room. An existing file is replaced; the new one is its owner's alone to read,
    as guest memory holds secrets. Raises UsageError when it cannot be written; what was written until then stays.
    """
    ram.mend()  # a page cut from a mapped file would end the writing with EFAULT
    found, complete = mappings(ram, outcome.cpu or CpuState())
    note = _prstatus(outcome.cpu, outcome.vcpu or 0) if outcome.cpu else b""
    head, places = _head(ram, found, note)
    try:
        fd = os.open(path, _HOW | os.O_TRUNC, 0o600)
        try:
            _store(fd, head, 0)
            os.ftruncate(fd, places[-1])
            for gpa, size in populated(ram):
                block = ram.block(gpa, size)
                assert block, "populated() gives parts of blocks"
                place = places[ram.blocks.index(block)]
                _store(fd, block.view[gpa - block.gpa :][:size], place + gpa - block.gpa)
        finally:
            os.close(fd)
    except OSError as error:
        raise _refusal(path, error) from None
    left_out = f"{path}: the page tables map more than {MOST_RANGES} ranges; the core names only the first of them"
    return () if complete else (left_out,)


def _refusal(path: str, error: OSError) -> UsageError:
    reason = (error.strerror or str(error)).lower()
    return UsageError(f"cannot write the core: {reason}", path=path, hint="name a regular file on a disk with room")


def _head(ram: GuestRam, found: tuple[Mapping, ...], note: bytes) -> tuple[bytes, list[int]]:
    """Return all that comes before memory, and the file offset of each block, with the file's size as the last."""
    count = bool(note) + len(found) + len(ram.blocks)
    start = _EHDR.size + count * _PHDR.size
    first = -(-(start + len(note)) // PAGE_SIZE) * PAGE_SIZE
    places = list(accumulate((block.size for block in ram.blocks), initial=first))
    ident = b"\x7fELF\2\1\1".ljust(16, b"\0")  # ELFCLASS64, little-endian
    rows = [_EHDR.pack(ident, 4, 62, 1, 0, _EHDR.size, 0, 0, _EHDR.size, _PHDR.size, count, 0, 0, 0)]  # ET_CORE
    if note:
        rows.append(_PHDR.pack(PT_NOTE, 4, start, 0, 0, len(note), 0, 4))
    rows += [_row(PT_LOAD, mapping, mapping.linear, _offset(mapping.gpa, ram.blocks, places)) for mapping in found]
    rows += [_row(PT_PVH_RAM, block, 0, place) for block, place in zip(ram.blocks, places, strict=False)]
    return b"".join(rows) + note, places


def _row(kind: int, run: Mapping | Block, linear: int, offset: int) -> bytes:
    return _PHDR.pack(kind, 7, offset, linear, run.gpa, run.size, run.size, PAGE_SIZE)


def _offset(gpa: int, blocks: tuple[Block, ...], places: list[int]) -> int:
    """Return where in the file a byte of RAM lies."""
    return next(place + gpa - block.gpa for block, place in zip(blocks, places, strict=False) if gpa < block.end)


def _prstatus(cpu: CpuState, vcpu: int) -> bytes:
    """Return the note; its thread is vCPU + 1, as 0 is no thread."""
    rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, *high = cpu.gprs
    r8, r9, r10, r11, r12, r13, r14, r15 = high
    no_system_call = (1 << 64) - 1
    registers = (
        r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, no_system_call,
        cpu.rip, cpu.cs.selector, cpu.rflags, rsp, cpu.ss.selector, cpu.fs.base, cpu.gs.base,
        cpu.ds.selector, cpu.es.selector, cpu.fs.selector, cpu.gs.selector,
    )  # fmt: skip
    thread = vcpu + 1
    status = _PRSTATUS.pack(bytes(12), 0, 0, 0, thread, 0, thread, thread, *registers, 0)
    return _NOTE.pack(5, len(status), NT_PRSTATUS, b"CORE") + status


def _store(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of data."""
    rest = memoryview(data)
    while rest:
        count = pwrite(fd, rest, offset)
        rest, offset = rest[count:], offset + count
