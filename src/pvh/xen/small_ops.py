"""Calls with little behind them in a PVH domU: vm_assist, physdev_op, and those that it is refused."""

from __future__ import annotations

from pvh.abi import hypercall as abi
from pvh.abi import physdev
from pvh.abi import vm_assist as assist
from pvh.abi.errno import EACCES, EINVAL, ENOSYS, EOPNOTSUPP, EPERM
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


def _control_op(version: int, caller: Caller, address: int) -> int:
    """Refuse platform_op, sysctl or domctl: with -EACCES who speaks another version of it, others with -EPERM."""
    _command, spoken = caller.load("<II", address)
    return -EPERM if spoken == version else -EACCES


def platform_op(_domain: Domain, caller: Caller, args: tuple[int, ...]) -> int:
    """Answer platform_op(arg) (xen/arch/x86/platform_hypercall.c)."""
    return _control_op(abi.PLATFORM_VERSION, caller, args[0])


def sysctl(_domain: Domain, caller: Caller, args: tuple[int, ...]) -> int:
    """Answer sysctl(arg) (xen/common/sysctl.c)."""
    return _control_op(abi.SYSCTL_VERSION, caller, args[0])


def domctl(_domain: Domain, caller: Caller, args: tuple[int, ...]) -> int:
    """Answer domctl(arg) (xen/common/domctl.c)."""
    return _control_op(abi.DOMCTL_VERSION, caller, args[0])


def xenpmu_op(_domain: Domain, _caller: Caller, _args: tuple[int, ...]) -> int:
    """Answer xenpmu_op(): not for guests with a local APIC (xen/arch/x86/cpu/vpmu.c)."""
    return -EOPNOTSUPP


def hypfs_op(_domain: Domain, _caller: Caller, _args: tuple[int, ...]) -> int:
    """Answer hypfs_op(): for control domains (xen/common/hypfs.c)."""
    return -EPERM
