"""hvm_op (xen/arch/x86/hvm/hvm.c)."""

from __future__ import annotations

from collections.abc import Callable

from pvh.abi import hvm_op as abi
from pvh.abi.errno import EINVAL, ENOENT, ENOSYS, EOPNOTSUPP
from pvh.abi.hvm_param import COUNT, PARAM
from pvh.hints import TYPE_CHECKING
from pvh.xen.host import BACKEND_DOMID

if TYPE_CHECKING:
    from pvh.xen.caller import Caller
    from pvh.xen.domain import Domain


def hvm_op(domain: Domain, caller: Caller, args: tuple[int, ...]) -> int:
    """Answer hvm_op(cmd, arg)."""
    command, address = args[0] & 0xFFFFFFFF, args[1]
    handler = _HANDLERS.get(command)
    return handler(domain, caller, address) if handler else -ENOSYS


def _refuse(domain: Domain, domid: int) -> int:
    """Return 0 for this domain, or an error: domain 0 is a PV guest, which these are not for."""
    return -EINVAL if domid == BACKEND_DOMID else domain.refuse(domid)


def _set_param(domain: Domain, caller: Caller, address: int) -> int:
    domid, _pad, index, value = caller.load(PARAM, address)
    if index >= COUNT:
        return -EINVAL
    return _refuse(domain, domid) or domain.params.set(index, value, wide=caller.wide)


def _get_param(domain: Domain, caller: Caller, address: int) -> int:
    domid, pad, index, _value = caller.load(PARAM, address)
    if index >= COUNT:
        return -EINVAL
    refusal = _refuse(domain, domid)
    if refusal:
        return refusal
    got = domain.params.get(index)
    if got < 0:
        return got
    caller.store(PARAM, address, domid, pad, index, got)
    return 0


def _flush_tlbs(_domain: Domain, _caller: Caller, address: int) -> int:
    return -EINVAL if address else 0


def _pagetable_dying(domain: Domain, caller: Caller, address: int) -> int:
    """Refuse, as Xen does with hardware-assisted paging."""
    domid, _gpa = caller.load(abi.PAGETABLE, address)
    return _refuse(domain, domid) or -EINVAL


def _get_time(domain: Domain, caller: Caller, address: int) -> int:
    caller.store("<Q", address, domain.clock.now())
    return 0


def _xentrace(_domain: Domain, caller: Caller, address: int) -> int:
    """Take a trace record, which nobody reads."""
    event, extra = caller.load(abi.TRACE, address)
    return -EINVAL if extra > abi.MOST_TRACED or event >> abi.TRACE_EVENT_BITS else 0


def _get_mem_type(domain: Domain, caller: Caller, address: int) -> int:
    domid, _type, gfn = caller.load(abi.MEM_TYPE, address)
    refusal = domain.refuse(domid)
    if refusal:
        return refusal
    kind = abi.MEM_RAM_RW if domain.physmap.is_mapped(gfn) else abi.MEM_MMIO_DM
    caller.store(abi.MEM_TYPE, address, domid, kind, gfn)
    return 0


def _upcall_vector(domain: Domain, caller: Caller, address: int) -> int:
    vcpu, vector = caller.load(abi.UPCALL_VECTOR, address)
    if vector < abi.FIRST_VECTOR:
        return -EINVAL
    if vcpu >= domain.vcpus:
        return -ENOENT
    domain.upcall_vectors[vcpu] = vector
    domain.host.raise_vector(vcpu, vector)
    return 0


def _guest_request_vm_event(_domain: Domain, _caller: Caller, address: int) -> int:
    """Tell who monitors the guest: nobody."""
    return -EINVAL if address else 0


def _altp2m(_domain: Domain, _caller: Caller, _address: int) -> int:
    return -EOPNOTSUPP


_HANDLERS: dict[int, Callable[[Domain, Caller, int], int]] = {
    abi.SET_PARAM: _set_param,
    abi.GET_PARAM: _get_param,
    abi.FLUSH_TLBS: _flush_tlbs,
    abi.PAGETABLE_DYING: _pagetable_dying,
    abi.GET_TIME: _get_time,
    abi.XENTRACE: _xentrace,
    abi.GET_MEM_TYPE: _get_mem_type,
    abi.SET_EVTCHN_UPCALL_VECTOR: _upcall_vector,
    abi.GUEST_REQUEST_VM_EVENT: _guest_request_vm_event,
    abi.ALTP2M: _altp2m,
}
