"""event_channel_op (xen/common/event_channel.c). The FIFO ABI is not offered: guests then use the 2-level one."""

from __future__ import annotations

from pvh.abi import event_channel as abi
from pvh.abi.errno import EBUSY, EEXIST, EINVAL, ENOENT, ENOSPC, ENOSYS
from pvh.hints import TYPE_CHECKING
from pvh.xen.events import Channel

if TYPE_CHECKING:
    from pvh.xen.caller import Caller
    from pvh.xen.domain import Domain

_VIRQS = 24
_PER_VCPU = frozenset({abi.VIRQ_TIMER, abi.VIRQ_DEBUG, abi.VIRQ_XENPMU})


def event_channel_op(domain: Domain, caller: Caller, args: tuple[int, ...]) -> int:
    """Answer event_channel_op(cmd, arg)."""
    command, address = args[0] & 0xFFFFFFFF, args[1]
    handler = _HANDLERS.get(command)
    return handler(domain, caller, address) if handler else -ENOSYS


def _bind_virq(domain: Domain, caller: Caller, address: int) -> int:
    virq, vcpu, _ = caller.load("<III", address)
    if virq >= _VIRQS or (virq not in _PER_VCPU and vcpu):
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
    if domain.events.channels.pop(port, None) is None:
        return -EINVAL
    domain.events.clear(port)
    return 0


def _send(domain: Domain, caller: Caller, address: int) -> int:
    (port,) = caller.load("<I", address)
    channel = domain.events.channels.get(port)
    if channel is None or channel.kind == "virq":
        return -EINVAL
    if channel.kind == "ipi":
        domain.events.set_pending(port)
    elif channel.notify:
        channel.notify()
    return 0


def _unmask(domain: Domain, caller: Caller, address: int) -> int:
    (port,) = caller.load("<I", address)
    if port not in domain.events.channels:
        return -EINVAL
    domain.events.unmask(port)
    return 0


def _bind_vcpu(domain: Domain, caller: Caller, address: int) -> int:
    port, vcpu = caller.load("<II", address)
    if vcpu >= domain.vcpus:
        return -ENOENT
    channel = domain.events.channels.get(port)
    if channel is None or channel.kind == "ipi" or (channel.kind == "virq" and channel.virq in _PER_VCPU):
        return -EINVAL
    channel.vcpu = vcpu
    return 0


_HANDLERS = {
    abi.BIND_VIRQ: _bind_virq,
    abi.BIND_IPI: _bind_ipi,
    abi.CLOSE: _close,
    abi.SEND: _send,
    abi.UNMASK: _unmask,
    abi.BIND_VCPU: _bind_vcpu,
}
