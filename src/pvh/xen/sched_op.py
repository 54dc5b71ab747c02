"""sched_op and set_timer_op (xen/common/sched/core.c)."""

from __future__ import annotations

from pvh.abi import sched as abi
from pvh.abi.errno import EINVAL, ENOSPC, ENOSYS, EPERM
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.xen.caller import Caller
    from pvh.xen.domain import Domain

_NS = 1_000_000_000
_TOO_FAR_NS = 1 << 50  # what Xen takes for a mistake of Linux's, and makes 100 ms of
_INSTEAD_NS = 100_000_000


def sched_op(domain: Domain, caller: Caller, args: tuple[int, ...]) -> int:
    """Answer sched_op(cmd, arg)."""
    command, address = args[0] & 0xFFFFFFFF, args[1]
    handler = _HANDLERS.get(command)
    return handler(domain, caller, address) if handler else -ENOSYS


def _yield(domain: Domain, caller: Caller, _address: int) -> int:
    domain.host.let_others_run(caller.vcpu)
    return 0


def _block(domain: Domain, caller: Caller, _address: int) -> int:
    """Sleep until there is an event; at once over if one waits to be taken."""
    domain.events.let_upcalls(caller.vcpu)
    if not _has_interrupt(domain, caller):
        domain.sleepers.sleep(caller.vcpu)
    return 0


def _poll(domain: Domain, caller: Caller, address: int) -> int:
    """Sleep until one of some ports is pending, or an event comes, or it is late; with one port, others wake nobody."""
    pointer, count, timeout = caller.load(abi.POLL_64 if caller.wide else abi.POLL_32, address)
    if count > abi.MOST_POLLED:
        return -EINVAL
    if _has_interrupt(domain, caller):
        return 0
    ports: list[int] = []
    for index in range(count):
        ports += caller.load("<I", pointer + 4 * index)
        if not domain.events.is_valid(ports[-1]):
            return -EINVAL
        if domain.events.is_pending(ports[-1]):
            return 0
    # Xen keeps one port's number, or that there are several: then any port wakes.
    until = max(1, _signed(timeout)) if timeout else 0
    domain.sleepers.sleep(caller.vcpu, frozenset(ports) if count == 1 else None, until)
    return 0


def _has_interrupt(domain: Domain, caller: Caller) -> bool:
    return caller.interrupts_enabled and domain.events.wants_upcall(caller.vcpu)


def _shutdown(domain: Domain, caller: Caller, address: int) -> int:
    (reason,) = caller.load("<I", address)
    domain.shut_down(reason & 0xFF)  # Xen takes any: what an unknown one means is the toolstack's business
    return 0


def _shutdown_code(domain: Domain, caller: Caller, address: int) -> int:
    """Latch the reason that a later shutdown will have, whatever it says itself; the first counts."""
    (reason,) = caller.load("<I", address)
    if domain.shutdown_code is None:
        domain.shutdown_code = reason & 0xFF
    return 0


def _remote_shutdown(domain: Domain, caller: Caller, address: int) -> int:
    """Refuse: a domain cannot shut itself down so, nor domain 0."""
    domid, _reason = caller.load(abi.REMOTE, address)
    return domain.refuse(domid) or -EPERM


def _watchdog(domain: Domain, caller: Caller, address: int) -> int:
    """Start one of two watchdogs (id 0: any that is free, whose id is returned), set it anew, or stop it (0 s)."""
    watchdog, seconds = caller.load(abi.WATCHDOG_ARG, address)
    if watchdog > abi.WATCHDOGS:
        return -EINVAL
    started = watchdog == 0
    if started:
        watchdog = next((number for number in (1, 2) if number not in domain.watchdogs), 0)
        if not watchdog:
            return -ENOSPC
        domain.watchdogs.add(watchdog)
    elif watchdog not in domain.watchdogs:
        return -EINVAL
    alarm = f"watchdog {watchdog}"
    if not started and not seconds:
        domain.watchdogs.discard(watchdog)
        domain.timers.cancel_alarm(0, alarm)
    else:
        domain.timers.set_alarm(0, alarm, domain.clock.now() + seconds * _NS, domain.alarm(0, alarm))
    return watchdog if started else 0


def set_timer_op(domain: Domain, caller: Caller, args: tuple[int, ...]) -> int:
    """Answer set_timer_op(timeout): the vCPU's singleshot timer, at an absolute time in ns; 0 stops it."""
    timeout = _signed(args[0] if caller.wide else (args[0] & 0xFFFFFFFF) | (args[1] & 0xFFFFFFFF) << 32)
    now = domain.clock.now()
    if timeout < 0 or timeout - now >= _TOO_FAR_NS:
        timeout = now + _INSTEAD_NS
    domain.timers.set_single(caller.vcpu, timeout or None)
    return 0


def _signed(value: int) -> int:
    """Return a 64-bit number as the s_time_t it is to Xen."""
    return value - (1 << 64) if value >> 63 else value


_HANDLERS = {
    abi.YIELD: _yield,
    abi.BLOCK: _block,
    abi.SHUTDOWN: _shutdown,
    abi.POLL: _poll,
    abi.REMOTE_SHUTDOWN: _remote_shutdown,
    abi.SHUTDOWN_CODE: _shutdown_code,
    abi.WATCHDOG: _watchdog,
}
