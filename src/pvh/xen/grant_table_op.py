"""grant_table_op, version 1, as far as an HVM guest may call it (xen/common/grant_table.c)."""

from __future__ import annotations

import struct
from collections.abc import Callable

from pvh.abi import grant_table as abi
from pvh.abi.errno import EINVAL, ENOSYS, EPERM
from pvh.abi.hypercall import DOMID_SELF
from pvh.abi.x86 import PAGE_SIZE
from pvh.hints import TYPE_CHECKING
from pvh.record import dataclass
from pvh.xen.host import BACKEND_DOMID

if TYPE_CHECKING:
    from pvh.xen.caller import Caller
    from pvh.xen.domain import Domain


def grant_table_op(domain: Domain, caller: Caller, args: tuple[int, ...]) -> int:
    """Answer grant_table_op(cmd, list, count). Most commands do `count` operations, each with a status of its own."""
    command, address, count = args[0] & 0xFFFFFFFF, args[1], args[2] & 0xFFFFFFFF
    many, single = _MANY.get(command), _SINGLE.get(command)
    if many is None and single is None:
        return -ENOSYS
    if count >> 31:
        return -EINVAL
    if single:
        return single(domain, caller, address, count)
    assert many is not None
    for _ in range(count):
        if not domain.running:
            break
        address += many(domain, caller, address)
    return 0


def _store_status(caller: Caller, address: int, status: int) -> None:
    caller.store("<h", address, status)


def _map(domain: Domain, caller: Caller, address: int) -> int:
    """Refuse to map a page: domain 0 grants none, and engines cannot show one of the guest's own at a second frame."""
    _host, flags, ref, domid, _status, _handle, _bus = caller.load(abi.MAP, address)
    _store_status(caller, address + abi.MAP_STATUS_AT, _map_status(domain, flags, ref, domid))
    return abi.MAP_SIZE


def _map_status(domain: Domain, flags: int, ref: int, domid: int) -> int:
    if not flags & (abi.GNTMAP_DEVICE_MAP | abi.GNTMAP_HOST_MAP):
        return abi.GNTST_BAD_GNTREF
    if flags & (abi.GNTMAP_DEVICE_MAP | abi.GNTMAP_APPLICATION_MAP | abi.GNTMAP_CONTAINS_PTE):
        return abi.GNTST_GENERAL_ERROR  # for guests whose page tables Xen looks after
    if domid == BACKEND_DOMID:
        return abi.GNTST_GENERAL_ERROR
    if domid != domain.domid:
        return abi.GNTST_BAD_DOMAIN
    return _own_map_status(domain, ref)


def _own_map_status(domain: Domain, ref: int) -> int:
    if not domain.grants.is_ref(ref):
        return abi.GNTST_BAD_GNTREF
    frame = domain.grants.begin(ref, domain.domid, write=False)
    if frame is None:
        return abi.GNTST_GENERAL_ERROR
    domain.grants.end(ref, write=False)
    return abi.GNTST_NO_SPACE if domain.physmap.is_mapped(frame) else abi.GNTST_BAD_PAGE


def _unmap(_domain: Domain, caller: Caller, address: int) -> int:
    """Refuse: nothing is mapped, so no handle is one."""
    caller.load(abi.UNMAP, address)
    _store_status(caller, address + abi.UNMAP_STATUS_AT, abi.GNTST_BAD_HANDLE)
    return abi.UNMAP_SIZE


@dataclass(frozen=True, slots=True)
class _End:
    """One end of a copy: a grant reference, or a frame of the caller's own."""

    by_ref: bool
    number: int
    domid: int
    offset: int
    write: bool


def _copy(domain: Domain, caller: Caller, address: int) -> int:
    layout, status_at = (abi.COPY_64, abi.COPY_STATUS_AT_64) if caller.wide else (abi.COPY_32, abi.COPY_STATUS_AT_32)
    number, domid, offset, to_number, to_domid, to_offset, size, flags, _ = caller.load(layout, address)
    source = _End(bool(flags & abi.GNTCOPY_SOURCE_GREF), number, domid, offset, write=False)
    target = _End(bool(flags & abi.GNTCOPY_DEST_GREF), to_number, to_domid, to_offset, write=True)
    _store_status(caller, address + status_at, _copy_status(domain, source, target, size))
    return struct.calcsize(layout)


def _copy_status(domain: Domain, source: _End, target: _End, size: int) -> int:
    for end in (source, target):
        refusal = _refuse_domain(domain, end)
        if refusal:
            return refusal
    origin = _claim(domain, source)
    if origin < 0:
        return origin
    place = _claim(domain, target)
    if place < 0:
        _release(domain, source)
        return place
    status = abi.GNTST_OKAY
    if source.offset + size > PAGE_SIZE or target.offset + size > PAGE_SIZE:
        status = abi.GNTST_BAD_COPY_ARG
    else:
        data = domain.ram.read(origin * PAGE_SIZE + source.offset, size)
        if data is None or not domain.ram.write(place * PAGE_SIZE + target.offset, data):
            status = abi.GNTST_BAD_PAGE
    _release(domain, target)
    _release(domain, source)
    return status


def _refuse_domain(domain: Domain, end: _End) -> int:
    if end.domid == DOMID_SELF:
        return 0
    if not end.by_ref:
        return abi.GNTST_PERMISSION_DENIED
    return 0 if end.domid in (domain.domid, BACKEND_DOMID) else abi.GNTST_BAD_DOMAIN


def _claim(domain: Domain, end: _End) -> int:
    """Return the frame at an end of a copy, or a status (negative)."""
    frame = end.number
    if end.by_ref:
        if end.domid == BACKEND_DOMID:
            return abi.GNTST_GENERAL_ERROR
        if not domain.grants.is_ref(end.number & 0xFFFFFFFF):
            return abi.GNTST_BAD_GNTREF
        granted = domain.grants.begin(end.number & 0xFFFFFFFF, domain.domid, write=end.write)
        if granted is None:
            return abi.GNTST_GENERAL_ERROR
        frame = granted
    if domain.physmap.is_ram(frame):
        return frame
    _release(domain, end)
    return abi.GNTST_BAD_PAGE


def _release(domain: Domain, end: _End) -> None:
    if end.by_ref:
        domain.grants.end(end.number & 0xFFFFFFFF, write=end.write)


def _swap(domain: Domain, caller: Caller, address: int) -> int:
    first, second, _ = caller.load(abi.SWAP, address)
    known = domain.grants.is_ref(first) and domain.grants.is_ref(second)
    if known:
        domain.grants.swap(first, second)
    _store_status(caller, address + abi.SWAP_STATUS_AT, abi.GNTST_OKAY if known else abi.GNTST_BAD_GNTREF)
    return struct.calcsize(abi.SWAP)


def _query_size(domain: Domain, caller: Caller, address: int, count: int) -> int:
    if count != 1:
        return -EINVAL
    domid, number, most, _ = caller.load(abi.QUERY, address)
    status = _domain_status(domain, domid)
    if status == abi.GNTST_OKAY:
        number, most = len(domain.grants.frames), abi.MOST_FRAMES
    caller.store(abi.QUERY, address, domid, number, most, status)
    return 0


def _setup_table(domain: Domain, caller: Caller, address: int, count: int) -> int:
    """Make frames, and tell at which guest frame each is: all ones for one that is not mapped."""
    if count != 1:
        return -EINVAL
    domid, number, _, pointer = caller.load(abi.SETUP_64 if caller.wide else abi.SETUP_32, address)
    status = abi.GNTST_GENERAL_ERROR if number > abi.MOST_FRAMES else _domain_status(domain, domid)
    if status == abi.GNTST_OKAY:
        domain.grants.grow(number)
        gfns = [-1 if page.gfn is None else page.gfn for page in domain.grants.frames[:number]]
        size = 8 if caller.wide else 4
        data = b"".join((gfn & (1 << 8 * size) - 1).to_bytes(size, "little") for gfn in gfns)
        if not caller.try_write(pointer, data):
            status = abi.GNTST_BAD_VIRT_ADDR
    _store_status(caller, address + abi.SETUP_STATUS_AT, status)
    return 0


def _domain_status(domain: Domain, domid: int) -> int:
    if domain.is_own(domid):
        return abi.GNTST_OKAY
    return abi.GNTST_PERMISSION_DENIED if domain.refuse(domid) == -EPERM else abi.GNTST_BAD_DOMAIN


def _set_version(_domain: Domain, caller: Caller, address: int, _count: int) -> int:
    """Stay at version 1, and say so. Version 2 is what a toolstack may forbid (max_grant_version=1)."""
    (version,) = caller.load("<I", address)
    caller.store("<I", address, 1)
    return {1: 0, 2: -ENOSYS}.get(version, -EINVAL)


def _get_version(domain: Domain, caller: Caller, address: int, _count: int) -> int:
    domid, _ = caller.load(abi.VERSION_OF, address)
    refusal = domain.refuse(domid)
    if not refusal:
        caller.store(abi.VERSION_OF, address, domid, 1)
    return refusal


_MANY: dict[int, Callable[[Domain, Caller, int], int]] = {
    abi.MAP_GRANT_REF: _map,
    abi.UNMAP_GRANT_REF: _unmap,
    abi.COPY: _copy,
    abi.SWAP_GRANT_REF: _swap,
}
_SINGLE: dict[int, Callable[[Domain, Caller, int, int], int]] = {
    abi.SETUP_TABLE: _setup_table,
    abi.QUERY_SIZE: _query_size,
    abi.SET_VERSION: _set_version,
    abi.GET_VERSION: _get_version,
}
