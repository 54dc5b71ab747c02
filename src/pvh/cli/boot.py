"""The machines of one `pvh run`: booted, and booted again when the guest reboots, or resumed from a snapshot."""

from __future__ import annotations

from pvh.build.builder import build
from pvh.engines.select import choose
from pvh.hints import TYPE_CHECKING
from pvh.kernel.read import read_kernel
from pvh.machine import Machine
from pvh.plan.planner import plan
from pvh.record import replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvh.devices.typed import Typed
    from pvh.engines.engine import Engine
    from pvh.kernel.record import Kernel
    from pvh.machine import Watch
    from pvh.plan.options import BootOptions
    from pvh.plan.record import Plan
    from pvh.snapshot import Snapshot


class Boot:
    """Makes machines with one console, on one engine.

    console, watch  of the machines, see Machine
    typed, timeout  of the next machine; timeout in seconds
    """

    def __init__(
        self, kernel: str, asked: BootOptions, options: Callable[[Kernel], BootOptions], say: Callable[[str], None]
    ) -> None:
        """kernel is a path. asked says which engine; options(kernel) all, or it refuses the kernel."""
        self._path = kernel
        self._asked = asked
        self._engine: Engine | None = None
        self._options = options
        self._say = say
        self._plan: Plan | None = None
        self.console: Callable[[bytes], None]
        self.watch: Watch | None = None
        self.typed: Typed | None = None
        self.timeout: float | None = None

    def choose(self) -> Engine:
        """Return the engine, chosen once. Raises NoEngine."""
        if self._engine is None:
            self._engine = choose(self._asked.engine, self._say, self._asked.clock)
        return self._engine

    @property
    def plan(self) -> Plan:
        """What is booted, planned once. Raises what reading and planning do."""
        if self._plan is None:
            kernel = read_kernel(self._path)
            self._plan = plan(kernel, self._options(kernel))
            for warning in self._plan.warnings:
                self._say(f"warning: {warning}")
        return self._plan

    def fresh(self) -> Machine:
        """Return a machine that boots."""
        made = replace(self.plan, options=replace(self.plan.options, timeout=self.timeout))
        return Machine(build(made), self.choose(), self.console, self.watch, self.typed)

    def resumed(self, snapshot: Snapshot) -> Machine:
        """Return a machine that goes on from a snapshot."""
        from pvh.snapshot import resume

        return resume(snapshot, self.choose(), self.console, self.watch, self.typed)
