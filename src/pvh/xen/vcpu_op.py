"""vcpu_op (xen/common/domain.c, do_vcpu_op; xen/common/compat/domain.c for 32-bit callers; xen/arch/x86/domain.c)."""

from __future__ import annotations

from pvh.abi import vcpu_context
from pvh.abi import vcpu_op as abi
from pvh.abi.errno import EINVAL, ENOENT, ENOSYS, ENXIO
from pvh.abi.x86 import PAGE_SIZE
from pvh.hints import TYPE_CHECKING
from pvh.xen.runstate import Area, pack, store

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


def _initialise(domain: Domain, caller: Caller, vcpu: int, address: int) -> int:
    """Copy the context in before anything else is looked at: -EFAULT comes before -EEXIST."""
    return domain.processors.initialise(vcpu, caller.memory.read(address, vcpu_context.SIZE))


def _up(domain: Domain, _caller: Caller, vcpu: int, _address: int) -> int:
    return domain.processors.request(vcpu, "up")


def _down(domain: Domain, _caller: Caller, vcpu: int, _address: int) -> int:
    return domain.processors.request(vcpu, "down")


def _is_up(domain: Domain, _caller: Caller, vcpu: int, _address: int) -> int:
    return int(domain.processors.is_up(vcpu))


def _get_runstate(domain: Domain, caller: Caller, vcpu: int, address: int) -> int:
    values = domain.processors[vcpu].runstate.read(domain.clock.now())
    caller.memory.write(address, pack(values, wide=caller.wide))
    return 0


def _register_runstate(domain: Domain, caller: Caller, vcpu: int, address: int) -> int:
    """Keep the info at a linear address. Xen gives 0 wherever that leads, and writes nothing where it leads nowhere.

    Xen translates it anew for each update, by the page tables the vCPU has then; we do so now, for all of them.
    """
    linear = _memory_area(caller, address)
    pieces = _pieces(caller, linear, len(pack((0,) * 6, wide=caller.wide)))
    domain.processors[vcpu].runstate.keep("linear", Area(pieces, caller.wide), write=True)
    return 0


def _register_runstate_phys(domain: Domain, caller: Caller, vcpu: int, address: int) -> int:
    """Keep the info at a guest-physical address; that of another vCPU is written when it next runs or stops.

    NO_AREA is no memory, so what is kept there is kept nowhere.
    """
    (gpa,) = caller.load(abi.PHYS_AREA, address)
    size = len(pack((0,) * 6, wide=caller.wide))
    refusal = _refuse_place(domain, gpa, size)
    if refusal:
        return refusal
    domain.processors[vcpu].runstate.keep("physical", Area(((gpa, size),), caller.wide), write=vcpu == caller.vcpu)
    return 0


def _register_time(domain: Domain, caller: Caller, _vcpu: int, address: int) -> int:
    """Write vcpu_time_info at a linear address, once: it never changes here."""
    linear, data = _memory_area(caller, address), domain.shared.time_info()
    store(domain.ram, _pieces(caller, linear, len(data)), data)
    return 0


def _register_time_phys(domain: Domain, caller: Caller, _vcpu: int, address: int) -> int:
    """Write vcpu_time_info at a guest-physical address, once: it never changes here. NO_AREA is no memory."""
    (gpa,) = caller.load(abi.PHYS_AREA, address)
    data = domain.shared.time_info()
    refusal = _refuse_place(domain, gpa, len(data))
    if not refusal:
        domain.ram.write(gpa, data)
    return refusal


def _memory_area(caller: Caller, address: int) -> int:
    (linear,) = caller.load(abi.MEMORY_AREA_64 if caller.wide else abi.MEMORY_AREA_32, address)
    return linear


def _pieces(caller: Caller, linear: int, size: int) -> tuple[tuple[int, int], ...]:
    """Return the guest-physical pieces behind a linear range that may be written; none unless all of it may."""
    pieces: list[tuple[int, int]] = []
    while size:
        count = min(size, PAGE_SIZE - linear % PAGE_SIZE)
        gpa = caller.memory.translate(linear, write=True)
        if gpa is None:
            return ()
        pieces.append((gpa, count))
        linear, size = linear + count, size - count
    return tuple(pieces)


def _refuse_place(domain: Domain, gpa: int, size: int) -> int:
    """Say what is wrong with a guest-physical area, as map_guest_area does: 0 if nothing is, or for NO_AREA."""
    if gpa == abi.NO_AREA:
        return 0
    if gpa % PAGE_SIZE > PAGE_SIZE - size or gpa % domain.shared.layout.word:
        return -ENXIO
    return 0 if domain.ram.view(gpa, size) is not None else -EINVAL


def _register_info(domain: Domain, caller: Caller, vcpu: int, address: int) -> int:
    gfn, offset, _ = caller.load(abi.REGISTER_INFO, address)
    result = domain.shared.register_vcpu_info(vcpu, gfn, offset)
    if result == 0:
        domain.call_up(vcpu)
    return result


def _set_periodic(domain: Domain, caller: Caller, vcpu: int, address: int) -> int:
    (period,) = caller.load(abi.PERIODIC, address)
    if not abi.SHORTEST_PERIOD_NS <= period <= abi.LONGEST_PERIOD_NS:
        return -EINVAL
    domain.timers.set_period(vcpu, period)
    return 0


def _stop_periodic(domain: Domain, _caller: Caller, vcpu: int, _address: int) -> int:
    domain.timers.set_period(vcpu, None)
    return 0


def _set_singleshot(domain: Domain, caller: Caller, vcpu: int, address: int) -> int:
    if caller.wide and vcpu != caller.vcpu:
        return -EINVAL
    timeout, _flags = caller.load(abi.SINGLESHOT_64 if caller.wide else abi.SINGLESHOT_32, address)
    if vcpu != caller.vcpu:  # the compat layer copies before it asks whose timer it is
        return -EINVAL
    # Xen compares it as a signed s_time_t: what looks like far away is long past.
    domain.timers.set_single(vcpu, timeout if timeout < 1 << 63 else 0)
    return 0


def _stop_singleshot(domain: Domain, caller: Caller, vcpu: int, _address: int) -> int:
    if vcpu != caller.vcpu:
        return -EINVAL
    domain.timers.set_single(vcpu, None)
    return 0


def _send_nmi(domain: Domain, _caller: Caller, vcpu: int, address: int) -> int:
    if address:
        return -EINVAL
    domain.host.nmi(vcpu)
    return 0


def _get_physid(_domain: Domain, _caller: Caller, _vcpu: int, _address: int) -> int:
    return -EINVAL  # only a hardware domain's vCPU that is pinned has one


_HANDLERS = {
    abi.INITIALISE: _initialise,
    abi.UP: _up,
    abi.DOWN: _down,
    abi.IS_UP: _is_up,
    abi.GET_RUNSTATE_INFO: _get_runstate,
    abi.REGISTER_RUNSTATE_MEMORY_AREA: _register_runstate,
    abi.SET_PERIODIC_TIMER: _set_periodic,
    abi.STOP_PERIODIC_TIMER: _stop_periodic,
    abi.SET_SINGLESHOT_TIMER: _set_singleshot,
    abi.STOP_SINGLESHOT_TIMER: _stop_singleshot,
    abi.REGISTER_VCPU_INFO: _register_info,
    abi.SEND_NMI: _send_nmi,
    abi.GET_PHYSID: _get_physid,
    abi.REGISTER_VCPU_TIME_MEMORY_AREA: _register_time,
    abi.REGISTER_RUNSTATE_PHYS_AREA: _register_runstate_phys,
    abi.REGISTER_VCPU_TIME_PHYS_AREA: _register_time_phys,
}
