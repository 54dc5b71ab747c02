"""memory_op: the memory map, and where shared_info goes (xen/common/memory.c, xen/arch/x86/mm.c)."""

from __future__ import annotations

import struct

from pvh.abi import memory as abi
from pvh.abi.errno import EINVAL, ENOSYS, ESRCH
from pvh.abi.hypercall import DOMID_SELF
from pvh.abi.x86 import PAGE_SIZE
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.xen.caller import Caller
    from pvh.xen.domain import Domain


def memory_op(domain: Domain, caller: Caller, args: tuple[int, ...]) -> int:
    """Answer memory_op(cmd, arg)."""
    command, address = args[0] & abi.CMD_MASK, args[1]
    if command == abi.MEMORY_MAP:
        return _memory_map(domain, caller, address)
    if command == abi.ADD_TO_PHYSMAP:
        return _add_to_physmap(domain, caller, address)
    if command in (abi.CURRENT_RESERVATION, abi.MAXIMUM_RESERVATION, abi.MAXIMUM_GPFN):
        return _reservation(domain, caller, command, address)
    return -ENOSYS


def _memory_map(domain: Domain, caller: Caller, address: int) -> int:
    layout = abi.MEMORY_MAP_64 if caller.wide else abi.MEMORY_MAP_32
    room, buffer = caller.load(layout, address)
    entries = domain.image.plan.memory_map[:room]
    caller.memory.write(buffer, b"".join(struct.pack(abi.E820_ENTRY, e.addr, e.size, e.type) for e in entries))
    caller.store(layout, address, len(entries), buffer)
    return 0


def _add_to_physmap(domain: Domain, caller: Caller, address: int) -> int:
    layout = abi.ADD_TO_PHYSMAP_64 if caller.wide else abi.ADD_TO_PHYSMAP_32
    domid, _size, space, index, gfn = caller.load(layout, address)
    if domid not in (DOMID_SELF, domain.domid):
        return -ESRCH
    if space != abi.XENMAPSPACE_SHARED_INFO:
        return -ENOSYS
    if index or gfn >> 40 or not domain.shared.map_at(gfn):
        return -EINVAL
    return 0


def _reservation(domain: Domain, caller: Caller, command: int, address: int) -> int:
    (domid,) = caller.load("<H", address)
    if domid not in (DOMID_SELF, domain.domid):
        return -ESRCH
    if command == abi.MAXIMUM_GPFN:
        return (domain.ram.blocks[-1].end // PAGE_SIZE) - 1
    return domain.image.plan.ram // PAGE_SIZE
