"""vcpu_op: what a running vCPU asks about itself (xen/common/domain.c).

Starting processors by hypercall is not offered yet: those commands give -ENOSYS.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pvh.abi import vcpu_op as abi
from pvh.abi.errno import EINVAL, ENOENT, ENOSYS

if TYPE_CHECKING:
    from pvh.xen.caller import Caller
    from pvh.xen.domain import Domain


def vcpu_op(domain: Domain, caller: Caller, args: tuple[int, ...]) -> int:
    """Answer vcpu_op(cmd, vcpuid, arg). The vCPU is looked up before the command."""
    command, vcpu, address = args[0] & 0xFFFFFFFF, args[1] & 0xFFFFFFFF, args[2]
    if vcpu >= domain.vcpus:
        return -ENOENT
    handler = _HANDLERS.get(command)
    return handler(domain, caller, vcpu, address) if handler else -ENOSYS


def _is_up(_domain: Domain, _caller: Caller, vcpu: int, _address: int) -> int:
    return int(vcpu == 0)


def _register_info(domain: Domain, caller: Caller, vcpu: int, address: int) -> int:
    gfn, offset, _ = caller.load(abi.REGISTER_INFO, address)
    result = domain.shared.register_vcpu_info(vcpu, gfn, offset)
    if result == 0:
        domain.call_up(vcpu)
    return result


def _register_runstate(domain: Domain, caller: Caller, _vcpu: int, address: int) -> int:
    (area,) = caller.load("<Q" if caller.wide else "<I4x", address)
    caller.memory.write(area, _runstate(domain, wide=caller.wide))
    return 0


def _get_runstate(domain: Domain, caller: Caller, _vcpu: int, address: int) -> int:
    caller.memory.write(address, _runstate(domain, wide=caller.wide))
    return 0


def _runstate(domain: Domain, *, wide: bool) -> bytes:
    """Pack vcpu_runstate_info: the vCPU that asks is running, and has been since it was made."""
    return struct.pack("<i4xQ4Q" if wide else "<iQ4Q", abi.RUNSTATE_RUNNING, 0, domain.clock.now(), 0, 0, 0)


def _stop_periodic(_domain: Domain, _caller: Caller, _vcpu: int, _address: int) -> int:
    return 0


def _set_singleshot(domain: Domain, caller: Caller, vcpu: int, address: int) -> int:
    if vcpu != caller.vcpu:
        return -EINVAL
    timeout, _flags = caller.load(abi.SINGLESHOT, address)
    # Xen compares it as a signed s_time_t: what looks like far away is long past.
    domain.set_timer(vcpu, timeout if timeout < 1 << 63 else 0)
    return 0


def _stop_singleshot(domain: Domain, caller: Caller, vcpu: int, _address: int) -> int:
    if vcpu != caller.vcpu:
        return -EINVAL
    domain.set_timer(vcpu, None)
    return 0


_HANDLERS = {
    abi.IS_UP: _is_up,
    abi.GET_RUNSTATE_INFO: _get_runstate,
    abi.REGISTER_RUNSTATE_MEMORY_AREA: _register_runstate,
    abi.STOP_PERIODIC_TIMER: _stop_periodic,
    abi.SET_SINGLESHOT_TIMER: _set_singleshot,
    abi.STOP_SINGLESHOT_TIMER: _stop_singleshot,
    abi.REGISTER_VCPU_INFO: _register_info,
}
