"""A kernel's first instructions under the first-read monitor, in the guest asked for and in some others."""

from __future__ import annotations

from pvh.build.builder import build
from pvh.conformance.clauses import of_kernel
from pvh.conformance.milestone import is_telling
from pvh.conformance.monitor.engine import INSTRUCTIONS, MonitoredEngine
from pvh.conformance.profiles import applied, profiles
from pvh.hints import TYPE_CHECKING
from pvh.machine import Machine
from pvh.plan.planner import plan
from pvh.record import replace

if TYPE_CHECKING:
    from pvh.conformance.checker import Task
    from pvh.conformance.finding import Finding
    from pvh.engines.emulator.engine import EmulatorEngine
    from pvh.plan.options import BootOptions

_SECONDS = 120.0
_BRIEF = 1.0  # of one that does nothing that can be seen
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


# Guests to watch beside the one asked for, each made of those of these profiles that there are: most clauses about what
# is absent, or ends somewhere, are exercised there only.
_GUESTS = (
    ("scattered", "plain-module", "long-cmdline"),
    ("version-0",),
    ("no-map", "no-acpi", "no-modules", "no-cmdline"),
)
_FIRST = 60_000  # instructions watched there: a kernel reads start_info early


def watch(task: Task, engine: EmulatorEngine) -> tuple[Finding, ...]:
    """Boot some guests, watched, and return what was found first of each clause; a run ends where its watching does."""
    found = {(one.clause, one.grade): one for one in _watch(task, task.options, engine, INSTRUCTIONS)}
    known = {profile.name: profile.deviations for profile in profiles(task.kernel, task.options)}
    for names in _GUESTS:
        present = [name for name in names if name in known]
        changed = dict.fromkeys(deviation for name in present for deviation in known[name])
        for one in _watch(task, applied(task.options, changed), engine, _FIRST):
            if one.clause != "idt":  # an exception there may be how the kernel dies of something else: profiles tell
                found.setdefault((one.clause, one.grade), replace(one, profile=" ".join(present)))
    return tuple(found.values())


def _watch(task: Task, options: BootOptions, engine: EmulatorEngine, limit: int) -> tuple[Finding, ...]:
    seconds = _SECONDS if is_telling(task.way) or not task.way else _BRIEF
    image = build(plan(task.kernel, replace(options, timeout=seconds)))
    try:
        machines: list[Machine] = []
        monitored = MonitoredEngine(engine, limit, over=lambda: machines[0].end("interrupted", "the watching is over"))
        machines.append(Machine(image, monitored, lambda _data: None))
        machines[0].run()
        return monitored.findings
    finally:
        image.ram.close()
