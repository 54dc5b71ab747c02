"""Calls with little behind them in a PVH domU: vm_assist, physdev_op."""

from __future__ import annotations

from pvh.abi import physdev
from pvh.abi import vm_assist as assist
from pvh.abi.errno import EINVAL, ENOSYS, EPERM
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.xen.caller import Caller
    from pvh.xen.domain import Domain


def vm_assist(domain: Domain, _caller: Caller, args: tuple[int, ...]) -> int:
    """Answer vm_assist(cmd, type) (xen/common/kernel.c): of the types, an HVM guest has that for its runstate areas."""
    command, kind = args[0] & 0xFFFFFFFF, args[1] & 0xFFFFFFFF
    if kind != assist.RUNSTATE_UPDATE_FLAG:
        return -EINVAL
    if command not in (assist.ENABLE, assist.DISABLE):
        return -ENOSYS
    for vcpu in range(domain.vcpus):
        domain.processors[vcpu].runstate.marks = command == assist.ENABLE
    return 0


def physdev_op(domain: Domain, caller: Caller, args: tuple[int, ...]) -> int:
    """Answer physdev_op(cmd, arg) (xen/arch/x86/{hvm/hypercall,physdev}.c).

    Without PIRQs only map and unmap get as far as their arguments; they are for who controls the domain.
    """
    command, address = args[0] & 0xFFFFFFFF, args[1]
    if command == physdev.MAP_PIRQ:
        domid, *_ = caller.load(physdev.MAP, address)
    elif command == physdev.UNMAP_PIRQ:
        domid, _ = caller.load(physdev.UNMAP, address)
    else:
        return -ENOSYS
    return domain.refuse(domid) or -EPERM
