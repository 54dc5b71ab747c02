"""event_channel_op (xen/common/event_channel.c). The FIFO ABI is not offered: guests then use the 2-level one."""

from __future__ import annotations

import struct

from pvh.abi import event_channel as abi
from pvh.abi.errno import EBUSY, EEXIST, EINVAL, ENOENT, ENOSPC, ENOSYS, ESRCH
from pvh.abi.hypercall import DOMID_SELF
from pvh.hints import TYPE_CHECKING
from pvh.xen.events import Channel
from pvh.xen.host import BACKEND_DOMID

if TYPE_CHECKING:
    from pvh.xen.caller import Caller
    from pvh.xen.domain import Domain

_PER_VCPU = frozenset({abi.VIRQ_TIMER, abi.VIRQ_DEBUG, abi.VIRQ_XENPMU})
_STATUS = {
    "unbound": abi.STATUS_UNBOUND,
    "interdomain": abi.STATUS_INTERDOMAIN,
    "host": abi.STATUS_INTERDOMAIN,
    "virq": abi.STATUS_VIRQ,
    "ipi": abi.STATUS_IPI,
}


def event_channel_op(domain: Domain, caller: Caller, args: tuple[int, ...]) -> int:
    """Answer event_channel_op(cmd, arg)."""
    command, address = args[0] & 0xFFFFFFFF, args[1]
    handler = _HANDLERS.get(command)
    return handler(domain, caller, address) if handler else -ENOSYS


def _alloc_unbound(domain: Domain, caller: Caller, address: int) -> int:
    domid, remote, _ = caller.load(abi.UNBOUND, address)
    refusal = domain.refuse(domid)
    if refusal:
        return refusal
    port = domain.events.allocate(Channel("unbound", remote=domain.domid if remote == DOMID_SELF else remote))
    if port is None:
        return -ENOSPC
    caller.store(abi.UNBOUND, address, domid, remote, port)
    return 0


def _bind_interdomain(domain: Domain, caller: Caller, address: int) -> int:
    """Bind to a port that waits for this domain. Domain 0 has none: its ends are bound when the guest is made."""
    domid, remote_port, _ = caller.load(abi.INTERDOMAIN, address)
    if not domain.is_own(domid):
        return -EINVAL if domid == BACKEND_DOMID else -ESRCH
    channels = domain.events.channels
    local = domain.events.allocate(Channel("unbound", remote=-1))
    if local is None:
        return -ENOSPC
    remote = channels.get(remote_port)
    if remote is None or remote.kind != "unbound" or remote.remote != domain.domid:
        del channels[local]
        return -EINVAL
    channels[local].kind = remote.kind = "interdomain"
    channels[local].remote = domain.domid
    channels[local].peer, remote.peer = remote_port, local
    domain.events.set_pending(local)  # the other end may have sent before: that was lost
    caller.store(abi.INTERDOMAIN, address, domid, remote_port, local)
    return 0


def _bind_virq(domain: Domain, caller: Caller, address: int) -> int:
    virq, vcpu, _ = caller.load("<III", address)
    if virq >= abi.NR_VIRQS or (virq not in _PER_VCPU and vcpu):
        return -EINVAL
    if vcpu >= domain.vcpus:
        return -ENOENT
    if virq not in _PER_VCPU:
        return -EBUSY  # a global VIRQ belongs to the hardware domain
    if domain.events.virq_port(vcpu, virq) is not None:
        return -EEXIST
    return _bound(domain, caller, address, Channel("virq", vcpu, virq), (virq, vcpu))


def _bind_ipi(domain: Domain, caller: Caller, address: int) -> int:
    vcpu, _ = caller.load("<II", address)
    if vcpu >= domain.vcpus:
        return -ENOENT
    return _bound(domain, caller, address, Channel("ipi", vcpu), (vcpu,))


def _bound(domain: Domain, caller: Caller, address: int, channel: Channel, fields: tuple[int, ...]) -> int:
    port = domain.events.allocate(channel)
    if port is None:
        return -ENOSPC
    caller.store(f"<{len(fields) + 1}I", address, *fields, port)
    return 0


def _close(domain: Domain, caller: Caller, address: int) -> int:
    (port,) = caller.load("<I", address)
    return 0 if domain.events.close(port) else -EINVAL


def _send(domain: Domain, caller: Caller, address: int) -> int:
    """Tell the other end. What is sent to a port that waits for its other end is dropped."""
    (port,) = caller.load("<I", address)
    channel = domain.events.channels.get(port)
    if channel is None or channel.kind == "virq":
        return -EINVAL
    if channel.kind == "ipi":
        domain.events.set_pending(port)
    elif channel.kind == "interdomain":
        domain.events.set_pending(channel.peer)
    elif channel.device:
        domain.events.tell(channel.device)
    return 0


def _status(domain: Domain, caller: Caller, address: int) -> int:
    domid, port = caller.load(abi.STATUS_ASKED, address)
    refusal = domain.refuse(domid)
    if refusal:
        return refusal
    if not domain.events.is_valid(port):
        return -EINVAL
    channel = domain.events.channels.get(port)
    if channel is None:
        told = struct.pack("<II", abi.STATUS_CLOSED, 0)
    else:
        told = struct.pack("<II", _STATUS[channel.kind], channel.vcpu) + _about(channel)
    caller.memory.write(address + struct.calcsize(abi.STATUS_ASKED), told)
    return 0


def _about(channel: Channel) -> bytes:
    """Return the part of evtchn_status that depends on the kind. A device's port in domain 0 has the same number."""
    if channel.kind == "unbound":
        return struct.pack("<H", channel.remote)
    if channel.kind == "interdomain":
        return struct.pack(abi.STATUS_PEER, channel.remote, channel.peer)
    if channel.kind == "host":
        return struct.pack(abi.STATUS_PEER, BACKEND_DOMID, channel.port)
    return struct.pack("<I", channel.virq) if channel.kind == "virq" else b""


def _unmask(domain: Domain, caller: Caller, address: int) -> int:
    (port,) = caller.load("<I", address)
    if not domain.events.is_valid(port):
        return -EINVAL
    if port in domain.events.channels:
        domain.events.unmask(port)
    return 0


def _bind_vcpu(domain: Domain, caller: Caller, address: int) -> int:
    port, vcpu = caller.load("<II", address)
    if vcpu >= domain.vcpus:
        return -ENOENT
    channel = domain.events.channels.get(port)
    if channel is None or channel.kind in ("virq", "ipi"):
        return -EINVAL  # every VIRQ that a domU can have belongs to one vCPU
    channel.vcpu = vcpu
    return 0


def _reset(domain: Domain, caller: Caller, address: int) -> int:
    """Close every port, those of console and xenstore too."""
    (domid,) = caller.load("<H", address)
    refusal = domain.refuse(domid)
    if refusal:
        return refusal
    for port in tuple(domain.events.channels):
        domain.events.close(port)
    return 0


def _bind_pirq(_domain: Domain, caller: Caller, address: int) -> int:
    """Refuse: there is no device whose interrupt could be bound."""
    caller.load("<III", address)
    return -EINVAL


_HANDLERS = {
    abi.BIND_INTERDOMAIN: _bind_interdomain,
    abi.BIND_VIRQ: _bind_virq,
    abi.BIND_PIRQ: _bind_pirq,
    abi.CLOSE: _close,
    abi.SEND: _send,
    abi.STATUS: _status,
    abi.ALLOC_UNBOUND: _alloc_unbound,
    abi.BIND_IPI: _bind_ipi,
    abi.BIND_VCPU: _bind_vcpu,
    abi.UNMASK: _unmask,
    abi.RESET: _reset,
}
