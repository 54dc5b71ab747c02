"""vCPUs that sleep at their own wish: SCHEDOP_block, SCHEDOP_poll (xen/common/sched/core.c, vcpu_block and do_poll)."""

from __future__ import annotations

from pvh.abi.vcpu_op import RUNSTATE_BLOCKED, RUNSTATE_RUNNING
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.xen.domain import Domain

POLL = "poll"  # the alarm of a poll's timeout


class Sleepers:
    """Who sleeps, and which ports wake it beside its own upcall. Callers hold the domain's lock."""

    KEPT = ("_sleeping",)

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._sleeping: dict[int, frozenset[int] | None] = {}

    def sleep(self, vcpu: int, ports: frozenset[int] | None = frozenset(), until: int = 0) -> None:
        """Have a vCPU that makes a hypercall sleep when that is over.

        ports  those that wake it as they become pending, masked or not; None: any
        until  domain time in ns when it wakes at the latest; 0: never
        """
        domain = self._domain
        self._sleeping[vcpu] = ports
        domain.host.block(vcpu)
        domain.note_runstate(vcpu, RUNSTATE_BLOCKED)
        if until:
            domain.timers.set_alarm(vcpu, POLL, until, domain.alarm(vcpu, POLL))

    def wake(self, vcpu: int) -> None:
        """End a vCPU's sleep, if it sleeps."""
        if vcpu in self._sleeping:
            self._domain.host.wake(vcpu)
            self.woke(vcpu)

    def woke(self, vcpu: int) -> None:
        """Note that a vCPU runs again, after HLT or a sleep of this kind."""
        if vcpu in self._sleeping:
            del self._sleeping[vcpu]
            self._domain.timers.cancel_alarm(vcpu, POLL)
        self._domain.note_runstate(vcpu, RUNSTATE_RUNNING)

    def runs(self, vcpu: int) -> None:
        """Note that a vCPU makes a hypercall: if it slept, its engine ended that by an interrupt of its own."""
        if vcpu in self._sleeping:
            self.wake(vcpu)

    def port_pending(self, port: int) -> None:
        """Wake who polls a port."""
        for vcpu in [vcpu for vcpu, ports in self._sleeping.items() if ports is None or port in ports]:
            self.wake(vcpu)
