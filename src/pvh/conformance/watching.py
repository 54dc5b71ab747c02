"""A kernel's first instructions under the first-read monitor, as libxenguest boots it."""

from __future__ import annotations

from pvh.build.builder import build
from pvh.conformance.clauses import of_kernel
from pvh.conformance.monitor.engine import MonitoredEngine
from pvh.hints import TYPE_CHECKING
from pvh.machine import Machine
from pvh.plan.planner import plan
from pvh.record import replace

if TYPE_CHECKING:
    from pvh.conformance.checker import Task
    from pvh.conformance.finding import Finding
    from pvh.engines.emulator.engine import EmulatorEngine

_SECONDS = 120.0
# What the monitor sees of clauses that are not about the processor (docs/monitor.md).
_SEEN = (
    "memory.poison",
    "memory.placement",
    "memory.legacy",
    "start_info.null",
    "start_info.last-bytes",
    "rsdp.placement",
    "modules.count",
    "devices",
)

WATCHED = tuple(clause.id for clause in of_kernel() if clause.part == "processor" or clause.id in _SEEN)


def watch(task: Task, engine: EmulatorEngine) -> tuple[Finding, ...]:
    """Boot once, watched, and return what was found; the run ends where the watching does."""
    image = build(plan(task.kernel, replace(task.options, timeout=_SECONDS)))
    try:
        machines: list[Machine] = []
        monitored = MonitoredEngine(engine, over=lambda: machines[0].end("interrupted", "the watching is over"))
        machines.append(Machine(image, monitored, lambda _data: None))
        machines[0].run()
        return monitored.findings
    finally:
        image.ram.close()
