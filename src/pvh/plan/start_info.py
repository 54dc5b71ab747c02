"""The start_info segment: what stands in it, in libxenguest's order, before its address is known.

    start_info | cmdline | modlist | module cmdlines | memmap

Each part starts on 8 bytes, as the strings are padded to 8 and every structure's size is a multiple of it
(xg_dom_x86.c, alloc_magic_pages_hvm and add_module_to_list). Xen has room for 2 modules with 1023 bytes each;
here the segment is as long as it must be.
"""

from __future__ import annotations

import struct

from pvh.abi import start_info as abi
from pvh.errors import UsageError
from pvh.plan import layout
from pvh.plan.options import BootOptions
from pvh.plan.record import Content, LiteralBytes, MemoryMapEntry, PlacedModule, Range, StartInfo
from pvh.record import dataclass, replace


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the segment: offset from its start and size, both in bytes."""

    offset: int
    size: int
    name: str
    reason: str
    content: Content = None


@dataclass(frozen=True, slots=True)
class InfoSegment:
    """The segment's parts and its size in bytes; module_cmdlines has None where a module has no command line."""

    head: Part
    cmdline: Part | None
    modlist: Part | None
    module_cmdlines: tuple[Part | None, ...]
    memmap: Part | None
    size: int

    def ranges(self, base: int, why_there: str) -> list[Range]:
        """Return the parts as ranges of a segment at base, in ascending order; why_there tells of the base."""
        head = replace(self.head, reason=f"{why_there}; {self.head.reason}")
        parts = (head, self.cmdline, self.modlist, *self.module_cmdlines, self.memmap)
        return [
            Range(base + part.offset, part.size, "start-info", part.name, part.reason, part.content)
            for part in parts
            if part
        ]

    def module(self, base: int, index: int, paddr: int, size: int, path: str) -> PlacedModule:
        """Return the list entry of a module of size bytes at paddr, when the segment is at base."""
        return PlacedModule(path, paddr, size, _address(base, self.module_cmdlines[index]))

    def values(
        self,
        base: int,
        options: BootOptions,
        modules: tuple[PlacedModule, ...],
        rsdp: int,
        memmap: tuple[MemoryMapEntry, ...] | None,
    ) -> StartInfo:
        """Return the structure's values when the segment is at base; Draft C has no RSDP.

        Flags are 0, as for any domU, unless asked for (SIF_* of public/xen.h).
        """
        return StartInfo(
            paddr=base + self.head.offset,
            flags=abi.SIF_PRIVILEGED * options.privileged | abi.SIF_INITDOMAIN * options.initdomain,
            cmdline_paddr=_address(base, self.cmdline),
            modlist_paddr=_address(base, self.modlist),
            modules=modules,
            rsdp_paddr=0 if options.abi == "draft-c" else rsdp,
            memmap_paddr=_address(base, self.memmap),
            memmap=memmap,
        )


def _address(base: int, part: Part | None) -> int:
    return base + part.offset if part else 0


def string_bytes(text: str, what: str) -> bytes:
    """Encode a command line with its NUL; raise UsageError when it holds one already, or no text at all.

    Bytes of the shell that are no UTF-8 come back as they were (PEP 383).
    """
    if "\0" in text:
        raise UsageError(f"{what} holds a NUL character", hint="the ABI's strings end at the first NUL")
    try:
        return text.encode("utf-8", "surrogateescape") + b"\0"
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} cannot be encoded", found=ascii(text[error.start : error.end])) from None


def info_segment(options: BootOptions, memmap_entries: int) -> InfoSegment:
    """Lay the segment out for these options and that many memory map entries (none before version 1)."""
    variation = options.variation
    end = 0

    def part(name: str, reason: str, size: int, content: Content = None) -> Part:
        nonlocal end
        here = Part(end, size, name, reason, content)
        end = -(-(end + size) // 8) * 8
        return here

    def string(text: str | None, name: str, reason: str) -> Part | None:
        if text is None:
            return None
        data = string_bytes(text, f"the {name}")
        return part(name, reason, len(data), LiteralBytes(data))

    draft = options.abi == "draft-c"
    entry = struct.calcsize(abi.DRAFT_C_MODULE if draft else abi.MODULE)
    own = struct.calcsize({"draft-c": abi.DRAFT_C, "v0": abi.V0, "v1": abi.V1}[options.abi]) + variation.tail
    head_size = own if variation.edge else max(own, abi.READABLE_SIZE)
    head = part("start_info", layout.START_INFO_REASON, head_size)
    cmdline = string(options.cmdline or None, "cmdline", layout.CMDLINE_REASON)
    count = len(options.modules)
    modlist = part("modlist", layout.MODLIST_REASON, count * entry) if count else None
    cmdlines = tuple(
        string(None if draft else spec.cmdline, f"module {index} cmdline", layout.MODULE_CMDLINE_REASON)
        for index, spec in enumerate(options.modules)
    )
    memmap = None
    if options.abi == "v1" and variation.mapped:
        memmap = part("memmap", layout.MEMMAP_REASON, memmap_entries * struct.calcsize(abi.MEMMAP_ENTRY))
    return InfoSegment(head, cmdline, modlist, cmdlines, memmap, end)
