"""Packs hvm_start_info, its module list and its memory map, in the layout the options ask for."""

from __future__ import annotations

import struct

from pvh.abi import start_info as abi
from pvh.plan.record import Plan, StartInfo


def start_info_pieces(plan: Plan) -> tuple[tuple[int, bytes], ...]:
    """Return (guest-physical address, bytes) of each structure; the command lines are in the plan's own ranges.

    Draft C has no module command lines, no RSDP and no memory map; version 0 has no memory map
    (xen/include/public/arch-x86/hvm/start_info.h; the thread for Draft C).
    """
    info = plan.start_info
    pieces = [(info.paddr, _head(plan)), (info.modlist_paddr, _modlist(plan))]
    if info.memmap_paddr and plan.options.abi == "v1":
        pieces.append((info.memmap_paddr, _memmap(plan)))
    return tuple((paddr, data) for paddr, data in pieces if data)


def _head(plan: Plan) -> bytes:
    info = plan.start_info
    count = len(info.modules)
    if plan.options.abi == "draft-c":
        return struct.pack(abi.DRAFT_C, abi.MAGIC, info.flags, info.cmdline_paddr, count, info.modlist_paddr)
    if plan.options.abi == "v0":
        return struct.pack(abi.V0, abi.MAGIC, 0, *_common(info))
    entries = len(plan.memmap) if info.memmap_paddr else 0
    version, tail = plan.options.variation.version, plan.options.variation.tail
    return struct.pack(abi.V1, abi.MAGIC, version, *_common(info), info.memmap_paddr, entries, 0) + b"\xff" * tail


def _common(info: StartInfo) -> tuple[int, int, int, int, int]:
    """Return what versions 0 and 1 have behind the version, in order."""
    return info.flags, len(info.modules), info.modlist_paddr, info.cmdline_paddr, info.rsdp_paddr


def _modlist(plan: Plan) -> bytes:
    modules = plan.start_info.modules
    if plan.options.abi == "draft-c":
        return b"".join(struct.pack(abi.DRAFT_C_MODULE, module.paddr, module.size) for module in modules)
    return b"".join(struct.pack(abi.MODULE, module.paddr, module.size, module.cmdline_paddr, 0) for module in modules)


def _memmap(plan: Plan) -> bytes:
    return b"".join(struct.pack(abi.MEMMAP_ENTRY, entry.addr, entry.size, entry.type, 0) for entry in plan.memmap)
