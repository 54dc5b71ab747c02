"""Timers: of vcpu_op a singleshot and a periodic one for each vCPU, both VIRQ_TIMER; and alarms for our own use.

xen/common/sched/core.c.
"""

from __future__ import annotations

from collections.abc import Callable

from pvh.abi.vcpu_op import RUNSTATE_RUNNING
from pvh.hints import TYPE_CHECKING, Any
from pvh.kept import put_back

if TYPE_CHECKING:
    from pvh.xen.host import Host
    from pvh.xen.vcpu import Vcpus


class Timers:
    """Times in ns of the domain's clock. raise_timer(vcpu) raises its VIRQ_TIMER.

    A singleshot timer fires whatever its vCPU does. A periodic one ticks only while the vCPU runs, and makes up for all
    ticks missed by one when it runs again: vcpu_periodic_timer_work, which Xen's scheduler calls.
    """

    KEPT = ("_single", "_period", "_ticked")

    def __init__(self, host: Host, now: Callable[[], int], vcpus: Vcpus, raise_timer: Callable[[int], None]) -> None:
        self._host = host
        self._now = now
        self._vcpus = vcpus
        self._raise = raise_timer
        self._single: dict[int, int] = {}
        self._period: dict[int, int] = {}
        self._ticked: dict[int, int] = {}  # when the last tick was
        self._alarms: dict[int, dict[str, tuple[int, Callable[[], None]]]] = {}

    def set_single(self, vcpu: int, deadline: int | None) -> None:
        """Arm or disarm the singleshot timer; a past deadline fires at once."""
        self._single.pop(vcpu, None)
        if deadline is not None:
            self._single[vcpu] = deadline
        self.look(vcpu)

    def set_period(self, vcpu: int, period: int | None) -> None:
        """Tick once every period, the first time a period after the last tick there ever was; None stops."""
        self._period.pop(vcpu, None)
        if period is not None:
            self._period[vcpu] = period
        self.look(vcpu)

    def set_alarm(self, vcpu: int, name: str, deadline: int, ring: Callable[[], None]) -> None:
        """Call ring once at a time, by the thread that runs a vCPU, instead of the alarm of that name.

        An alarm rings whatever the vCPU does, and at once if its time has passed.
        """
        self._alarms.setdefault(vcpu, {})[name] = (deadline, ring)
        self.look(vcpu)

    @property
    def alarms(self) -> list[tuple[int, str, int]]:
        """The alarms that have not rung: vCPU, name, deadline."""
        return [(vcpu, name, at) for vcpu, all_ in self._alarms.items() for name, (at, _) in all_.items()]

    def apply(self, state: dict[str, Any]) -> None:
        """Go on from what was kept, without alarms."""
        self._alarms = {}
        put_back(self, state)

    def cancel_alarm(self, vcpu: int, name: str) -> None:
        """Have an alarm not ring, if there is one of that name."""
        self._alarms.get(vcpu, {}).pop(name, None)
        self.look(vcpu)

    def runstate_changed(self, vcpu: int) -> None:
        """Go on ticking, or do not: the vCPU runs now, or does not."""
        if vcpu in self._period:
            self.look(vcpu)

    def look(self, vcpu: int) -> None:
        """Fire what is due, and ask the host to be called when the next is."""
        now = self._now()
        if self._single.get(vcpu, now + 1) <= now:
            del self._single[vcpu]
            self._raise(vcpu)
        next_tick = self._tick(vcpu, now)
        alarms = self._alarms.get(vcpu, {})
        for name in [name for name, (at, _) in alarms.items() if at <= now]:
            _, ring = alarms.pop(name, (0, None))  # gone, if an earlier one had it cancelled
            if ring:
                ring()
        due = [at for at in (self._single.get(vcpu), next_tick) if at is not None]
        self._host.arm(vcpu, min([*due, *(at for at, _ in alarms.values())], default=None))

    def _tick(self, vcpu: int, now: int) -> int | None:
        """Tick if it is time, and return when it is next."""
        if vcpu not in self._period or self._vcpus[vcpu].runstate.state != RUNSTATE_RUNNING:
            return None
        period = self._period[vcpu]
        if self._ticked.get(vcpu, 0) + period <= now:
            self._ticked[vcpu] = now
            self._raise(vcpu)
        return self._ticked.get(vcpu, 0) + period
