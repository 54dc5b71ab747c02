"""memory_op: the memory map, ballooning, and where Xen's own pages go (xen/common/memory.c, xen/arch/x86/mm.c)."""

from __future__ import annotations

import struct

from pvh.abi import memory as abi
from pvh.abi.errno import EACCES, EDOM, EILSEQ, EINVAL, ENOENT, ENOSYS, EPERM
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.xen.caller import Caller
    from pvh.xen.domain import Domain
    from pvh.xen.physmap import XenPage

_RESERVATIONS = frozenset({abi.INCREASE_RESERVATION, abi.DECREASE_RESERVATION, abi.POPULATE_PHYSMAP})


def memory_op(domain: Domain, caller: Caller, args: tuple[int, ...]) -> int:
    """Answer memory_op(cmd, arg). Above the six bits of the command is where a continuation goes on."""
    command, start, address = args[0] & abi.CMD_MASK, args[0] >> abi.EXTENT_SHIFT, args[1]
    if command in _RESERVATIONS:
        return _reservation(domain, caller, command, start, address)
    if command == abi.MEMORY_MAP:
        return _memory_map(domain, caller, address)
    if command == abi.ADD_TO_PHYSMAP:
        return _add_to_physmap(domain, caller, start, address)
    handler = _WITHOUT_START.get(command)
    if handler is None:
        return -ENOSYS
    return -EINVAL if start else handler(domain, caller, address)


def _reservation(domain: Domain, caller: Caller, command: int, start: int, address: int) -> int:
    """Change what memory there is, extent by extent; return how many are done. That is the only sign of an error."""
    layout = abi.RESERVATION_64 if caller.wide else abi.RESERVATION_32
    loaded = caller.try_load(layout, address)
    if loaded is None:
        return start
    extents, count, order, flags, domid = loaded
    too_much = count > abi.MOST_EXTENTS or order > abi.MOST_ORDER
    if too_much or start >= count or not domain.is_own(domid) or flags & abi.XENMEMF_POPULATE_ON_DEMAND:
        return start
    done = start
    while done < count and domain.running and _extent(domain, caller, command, extents, done, order):
        done += 1
    return done


def _extent(domain: Domain, caller: Caller, command: int, extents: int, index: int, order: int) -> bool:
    """Carry one extent of a reservation out; return whether that was possible."""
    physmap, size = domain.physmap, 1 << order
    if command == abi.INCREASE_RESERVATION:
        return physmap.allocate(size)  # no frame leads to it: a guest with a physical map of its own has no use for it
    loaded = caller.try_load("<Q" if caller.wide else "<I", extents + index * (8 if caller.wide else 4))
    if loaded is None:
        return False
    (gfn,) = loaded
    if command == abi.POPULATE_PHYSMAP:
        return physmap.populate(gfn, size)
    return all(physmap.remove(gfn + page, free=True) for page in range(size))


def _memory_map(domain: Domain, caller: Caller, address: int) -> int:
    layout = abi.MEMORY_MAP_64 if caller.wide else abi.MEMORY_MAP_32
    room, buffer = caller.load(layout, address)
    size = struct.calcsize(abi.E820_ENTRY)
    told = domain.memory_map[: room * size]
    caller.memory.write(buffer, told)
    caller.store(layout, address, len(told) // size, buffer)
    return 0


def _set_memory_map(domain: Domain, caller: Caller, address: int) -> int:
    """Take the map that memory_map gives from now on: GRUB makes one for the kernel that it starts."""
    domid, count, buffer = caller.load(abi.FOREIGN_MEMORY_MAP_64 if caller.wide else abi.FOREIGN_MEMORY_MAP_32, address)
    refusal = (-EINVAL if count > abi.MOST_E820_ENTRIES else 0) or domain.refuse(domid)
    if not refusal:
        domain.memory_map = caller.memory.read(buffer, count * struct.calcsize(abi.E820_ENTRY))
    return refusal


def _add_to_physmap(domain: Domain, caller: Caller, start: int, address: int) -> int:
    if start >> 16:
        return -EDOM
    layout = abi.ADD_TO_PHYSMAP_64 if caller.wide else abi.ADD_TO_PHYSMAP_32
    domid, size, space, index, gfn = caller.load(layout, address)
    if space == abi.XENMAPSPACE_GMFN_FOREIGN:
        return -ENOSYS  # only add_to_physmap_batch can say whose frame it is
    refusal = domain.refuse(domid) or (-EACCES if space == abi.XENMAPSPACE_DEV_MMIO else 0)
    if refusal:
        return refusal
    return _map_page(domain, space, start, (size, index, gfn))


def _map_page(domain: Domain, space: int, start: int, what: tuple[int, int, int]) -> int:
    """Put what a map space and an index name at a frame; what: size (of a range), index, frame."""
    size, index, gfn = what
    if space == abi.XENMAPSPACE_GMFN_RANGE:
        return _move_range(domain, start, size, index, gfn)
    if space == abi.XENMAPSPACE_GMFN:
        return 0 if domain.physmap.move(index, gfn) else -EINVAL
    page = _page_of(domain, space, index)
    if page is None or not domain.physmap.map(page, gfn):
        return -EINVAL
    domain.shared.refresh()
    return 0


def _page_of(domain: Domain, space: int, index: int) -> XenPage | None:
    """Return the page of Xen's own that a map space and an index name."""
    if space == abi.XENMAPSPACE_SHARED_INFO and index == 0:
        return domain.shared.page
    if space == abi.XENMAPSPACE_GRANT_TABLE:
        return domain.grants.frame(index)
    return None


def _move_range(domain: Domain, start: int, size: int, index: int, gfn: int) -> int:
    """Move `size` pages from index to gfn; a failure leaves those before it moved."""
    if size < start:
        return -EILSEQ
    for page in range(start, size):
        if not domain.physmap.move(index + page, gfn + page):
            return -EINVAL
    return 0


def _maximum_ram_page(domain: Domain, _caller: Caller, _address: int) -> int:
    """Tell how much the machine has: there is nothing but this domain in it."""
    return domain.physmap.last + 1


def _current(domain: Domain, caller: Caller, address: int) -> int:
    return _refuse(domain, caller, address) or domain.physmap.pages


def _maximum(domain: Domain, caller: Caller, address: int) -> int:
    return _refuse(domain, caller, address) or domain.physmap.maximum


def _maximum_gpfn(domain: Domain, caller: Caller, address: int) -> int:
    return _refuse(domain, caller, address) or domain.physmap.last


def _refuse(domain: Domain, caller: Caller, address: int) -> int:
    (domid,) = caller.load("<H", address)
    return domain.refuse(domid)


def _remove_from_physmap(domain: Domain, caller: Caller, address: int) -> int:
    """Take a page out of the map; it stays the domain's, though the domain cannot reach it any more."""
    domid, gfn = caller.load(abi.REMOVE_FROM_PHYSMAP_64 if caller.wide else abi.REMOVE_FROM_PHYSMAP_32, address)
    refusal = domain.refuse(domid)
    if refusal:
        return refusal
    return 0 if domain.physmap.remove(gfn, free=False) else -ENOENT


def _machine_memory_map(_domain: Domain, _caller: Caller, _address: int) -> int:
    return -EPERM  # for the hardware domain


_WITHOUT_START = {
    abi.MAXIMUM_RAM_PAGE: _maximum_ram_page,
    abi.CURRENT_RESERVATION: _current,
    abi.MAXIMUM_RESERVATION: _maximum,
    abi.SET_MEMORY_MAP: _set_memory_map,
    abi.MAXIMUM_GPFN: _maximum_gpfn,
    abi.REMOVE_FROM_PHYSMAP: _remove_from_physmap,
    abi.MACHINE_MEMORY_MAP: _machine_memory_map,
}
