"""What the ABI promises of a guest before its first instruction, checked in its memory and registers.

Written from xen/include/public/arch-x86/hvm/start_info.h and docs/misc/pvh.pandoc alone: it takes nothing of pvh's
plans, and knows no address that pvh chose. What is promised is asked for; what is not is not looked at.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise

from pvh.build.cpu_state import CpuState
from pvh.build.ram import GuestRam

GIB4 = 1 << 32
RAM = 1


class NotByTheAbi(AssertionError):
    """The guest is not one that this ABI describes."""


def check(fine: bool, what: str) -> None:  # noqa: FBT001 - as assert
    if not fine:
        raise NotByTheAbi(what)


@dataclass
class Told:
    """What a kernel learns from start_info."""

    version: int
    cmdline: bytes | None
    modules: list[tuple[int, int, bytes | None]]
    rsdp: int
    memmap: list[tuple[int, int, int]]
    parts: list[tuple[int, int]]  # start and end of every structure and module


def processor(state: CpuState, entry: int) -> None:
    """pvh.pandoc, "x86 HVM direct boot ABI": the state of the boot processor."""
    check(state.rip == entry, "eip")
    check(state.cr0 & 0xE005002F == 1, "cr0: PE, and nothing else that can be written")
    check(state.cr4 == 0, "cr4")
    check(state.rflags & (1 << 17 | 1 << 9 | 1 << 8) == 0, "eflags: VM, IF, TF")
    check(state.efer & 1 << 10 == 0, "long mode is not active")
    check(state.dr7 & 0xFF == 0, "no breakpoint is armed: there is no IDT")
    for name, kind in (("cs", 0xA), ("ds", 0x2), ("es", 0x2), ("ss", 0x2)):
        register = getattr(state, name)
        check((register.base, register.limit) == (0, 0xFFFFFFFF), f"{name} is flat")
        check(register.attributes & 0xE == kind, f"{name}: type")
        check(register.attributes >> 4 & 0xF == 9, f"{name}: present, of ring 0, no system segment")
        check(register.attributes & 1 << 10 != 0, f"{name}: 32 bits")
        check(register.selector & 3 == 0, f"{name}: a selector of ring 0")
    check((state.tr.base, state.tr.limit, state.tr.attributes) == (0, 0x67, 0x8B), "tr")


def start_info(ram: GuestRam, address: int) -> Told:
    """Read start_info and all that it points to, each in memory and below 4 GiB."""
    parts: list[tuple[int, int]] = []

    def read(at: int, size: int, what: str) -> bytes:
        data = ram.read(at, size)
        check(data is not None and at > 0, f"{what} at {at:#x} is no memory")
        check(at + size <= GIB4, f"{what} at {at:#x} reaches beyond 4 GiB")
        parts.append((at, at + size))
        assert data is not None
        return data

    def string(at: int, what: str) -> bytes | None:
        if not at:
            return None
        text = b""
        while not text.endswith(b"\0"):
            byte = ram.read(at + len(text), 1)
            check(byte is not None, f"{what} has no end")
            text += byte or b"\0"
        parts.append((at, at + len(text)))
        return text[:-1]

    head = read(address, 40, "start_info")
    magic, version, flags, count, modlist, cmdline, rsdp = struct.unpack("<IIIIQQQ", head)
    check(magic == 0x336EC578, "the magic number")
    check(flags & ~0xFF1F == 0, "flags that nobody defined")
    check(count == 0 or modlist != 0, "modules, and no list")
    memmap: list[tuple[int, int, int]] = []
    if version >= 1:
        parts.pop()
        head = read(address, 56, "start_info of version 1")
        at, entries, reserved = struct.unpack_from("<QII", head, 40)
        check(reserved == 0, "reserved, and not 0")
        check(entries == 0 or at != 0, "entries, and no map")
        for index in range(entries):
            start, size, kind, reserved = struct.unpack("<QQII", read(at + 24 * index, 24, "the memory map"))
            check(reserved == 0, "reserved, and not 0")
            memmap.append((start, size, kind))
    modules: list[tuple[int, int, bytes | None]] = []
    for index in range(count):
        start, size, text, reserved = struct.unpack("<QQQQ", read(modlist + 32 * index, 32, "the module list"))
        check(reserved == 0, "reserved, and not 0")
        read(start, size, f"module {index}")
        modules.append((start, size, string(text, "a module's command line")))
    return Told(version, string(cmdline, "the command line"), modules, rsdp, memmap, parts)


def memory(ram: GuestRam, told: Told, image: list[tuple[int, int]]) -> None:
    """RAM of the map is memory, once; the image and what start_info points to are in it, and apart."""
    spans = sorted((start, start + size) for start, size, kind in told.memmap if kind == RAM and size)
    others = sorted((start, start + size) for start, size, kind in told.memmap if kind != RAM and size)
    every = sorted(spans + others)
    check(all(before[1] <= after[0] for before, after in pairwise(every)), "entries overlap")
    for start, end in spans:
        check(start % 4096 == 0, "RAM begins within a page")
        check(ram.block(start, end - start) is not None, f"{start:#x}-{end:#x} is called RAM, and is none")
    joined: list[list[int]] = []
    for start, end in spans:
        if joined and joined[-1][1] == start:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    pieces = sorted([*told.parts, *image])
    pieces = [piece for piece in pieces if piece[0] < piece[1]]
    # Entries of one list follow each other; nothing else may touch.
    check(all(before[1] <= after[0] for before, after in pairwise(pieces)), "two things overlap")
    if spans:
        for start, end in pieces:
            inside = any(low <= start and end <= high for low, high in joined)
            check(inside, f"{start:#x}-{end:#x} is used, and no RAM")


def acpi(ram: GuestRam, told: Told) -> None:
    """The RSDP, if there is one, has its signature and checksum."""
    if told.rsdp:
        data = ram.read(told.rsdp, 36)
        check(data is not None and data.startswith(b"RSD PTR ") and sum(data[:20]) % 256 == 0, "the RSDP")
