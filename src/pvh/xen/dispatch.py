"""From a hypercall exit to its answer (xen/arch/x86/hvm/hypercall.c)."""

from __future__ import annotations

from collections.abc import Callable

from pvh.abi import hypercall as abi
from pvh.abi.errno import EFAULT, ENOSYS, EPERM
from pvh.build.linear import LinearFault
from pvh.hints import TYPE_CHECKING
from pvh.xen.caller import Caller
from pvh.xen.event_channel_op import event_channel_op
from pvh.xen.memory_op import memory_op
from pvh.xen.params import hvm_op
from pvh.xen.sched_op import sched_op
from pvh.xen.vcpu_op import vcpu_op
from pvh.xen.version import console_io, xen_version

if TYPE_CHECKING:
    from pvh.build.cpu_state import CpuState
    from pvh.engines.exits import Hypercall
    from pvh.xen.domain import Domain

Handler = Callable[["Domain", Caller, tuple[int, ...]], int]

HANDLERS: dict[int, Handler] = {
    abi.MEMORY_OP: memory_op,
    abi.XEN_VERSION: xen_version,
    abi.CONSOLE_IO: console_io,
    abi.VCPU_OP: vcpu_op,
    abi.SCHED_OP: sched_op,
    abi.EVENT_CHANNEL_OP: event_channel_op,
    abi.HVM_OP: hvm_op,
}


def hypercall(domain: Domain, vcpu: int, call: Hypercall, state: Callable[[], CpuState]) -> int:
    """Carry a hypercall out; return what goes to rax, or to eax in 32- and 16-bit code, unsigned."""
    mask = (1 << 64) - 1 if call.bits == 64 else (1 << 32) - 1
    if call.cpl:
        return -EPERM & mask
    handler = HANDLERS.get(call.number)
    if handler is None:
        return -ENOSYS & mask
    caller = Caller(vcpu, call.bits, domain.ram, state)
    with domain.lock:
        try:
            return handler(domain, caller, call.args) & mask
        except LinearFault:
            return -EFAULT & mask
