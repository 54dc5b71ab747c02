"""From a hypercall exit to its answer (xen/arch/x86/hvm/hypercall.c)."""

from __future__ import annotations

from collections.abc import Callable

from pvh.abi import hypercall as abi
from pvh.abi.errno import EFAULT, ENOSYS, EPERM
from pvh.build.linear import LinearFault
from pvh.hints import TYPE_CHECKING
from pvh.xen.caller import Caller
from pvh.xen.event_channel_op import event_channel_op
from pvh.xen.grant_table_op import grant_table_op
from pvh.xen.hvm_op import hvm_op
from pvh.xen.memory_op import memory_op
from pvh.xen.multicall import multicall
from pvh.xen.sched_op import sched_op, set_timer_op
from pvh.xen.small_ops import domctl, hypfs_op, physdev_op, platform_op, sysctl, vm_assist, xenpmu_op
from pvh.xen.vcpu_op import vcpu_op
from pvh.xen.version import console_io, xen_version

if TYPE_CHECKING:
    from pvh.build.cpu_state import CpuState
    from pvh.engines.exits import Hypercall
    from pvh.xen.domain import Domain

Handler = Callable[["Domain", Caller, tuple[int, ...]], int]


def _multicall(domain: Domain, caller: Caller, args: tuple[int, ...]) -> int:
    return multicall(domain, caller, args, _invoke)


HANDLERS: dict[int, Handler] = {
    abi.PLATFORM_OP: platform_op,
    abi.MEMORY_OP: memory_op,
    abi.MULTICALL: _multicall,
    abi.SET_TIMER_OP: set_timer_op,
    abi.XEN_VERSION: xen_version,
    abi.CONSOLE_IO: console_io,
    abi.GRANT_TABLE_OP: grant_table_op,
    abi.VM_ASSIST: vm_assist,
    abi.VCPU_OP: vcpu_op,
    abi.SCHED_OP: sched_op,
    abi.EVENT_CHANNEL_OP: event_channel_op,
    abi.PHYSDEV_OP: physdev_op,
    abi.HVM_OP: hvm_op,
    abi.SYSCTL: sysctl,
    abi.DOMCTL: domctl,
    abi.XENPMU_OP: xenpmu_op,
    abi.HYPFS_OP: hypfs_op,
}


def _invoke(domain: Domain, caller: Caller, number: int, args: tuple[int, ...]) -> int:
    """Carry one call out; return its signed result."""
    handler = HANDLERS.get(number)
    if handler is None:
        return -ENOSYS
    try:
        return handler(domain, caller, args)
    except LinearFault:
        return -EFAULT


def hypercall(domain: Domain, vcpu: int, call: Hypercall, state: Callable[[], CpuState]) -> int:
    """Carry a hypercall out; return what goes to rax, or to eax in 32- and 16-bit code, unsigned."""
    mask = (1 << 64) - 1 if call.bits == 64 else (1 << 32) - 1
    if call.cpl:
        return -EPERM & mask
    caller = Caller(vcpu, call.bits, domain.ram, state)
    with domain.lock:
        domain.sleepers.runs(vcpu)
        return _invoke(domain, caller, call.number, call.args) & mask
