"""A kernel's first instructions under the first-read monitor, in the guest asked for and in some others."""

from __future__ import annotations

from pvh.build.builder import build
from pvh.conformance.boot import boot
from pvh.conformance.clauses import of_kernel
from pvh.conformance.milestone import is_telling
from pvh.conformance.monitor.engine import INSTRUCTIONS, MonitoredEngine
from pvh.conformance.profiles import applied, profiles
from pvh.hints import TYPE_CHECKING
from pvh.machine import Machine
from pvh.plan.planner import plan
from pvh.record import dataclass, replace

if TYPE_CHECKING:
    from pvh.conformance.checker import Task
    from pvh.conformance.disturbed import Deviation
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
    ("scattered", "plain-module"),
    ("long-cmdline",),
    ("version-0",),
    ("no-map", "no-acpi", "no-modules", "no-cmdline"),
)
_PROCESSORS = ("ones", "random", "nasty")  # profiles that differ in what registers hold
_FIRST = 60_000  # instructions watched there: a kernel reads start_info early


# Which of what the monitor tells of being read a clause is about, by the beginning of its id.
_ABOUT = {
    "memmap": "the memory map",
    "cmdline": "cmdline",
    "modules": "the module list",
    "rsdp": "rsdp_paddr",
    "start_info": "start_info",
    "version": "start_info",
    "memory.amount": "start_info",
    "memory.placement": "start_info",
    "vcpus": "start_info",
}


@dataclass(frozen=True, slots=True)
class Watched:
    """What watching a kernel showed.

    findings  first of each clause
    read      what was read of start_info and what it leads to, and how many blocks were executed before, at least
    blocks    how many were executed of the guest asked for when its watching ended; None: it came to its end
    """

    findings: tuple[Finding, ...]
    read: dict[str, int]
    blocks: int | None

    @property
    def clauses(self) -> tuple[str, ...]:
        """Ids of the clauses that it put to the test: none about what was not read."""
        return tuple(clause for clause in WATCHED if (about := _about(clause)) is None or about in self.read)

    def exercised_by(self, blocks: int, clause: str) -> bool:
        """Whether a boot of so many blocks puts a clause to the test: if it can have read what that is about.

        What a boot reads that goes on where the watching is over is not known: it has the benefit of the doubt. The
        stop at its end counts as some of the blocks; and under the monitor the first is begun twice.
        """
        from pvh.engines.emulator.vcpu import STOP_BLOCKS

        blocks = max(0, blocks - STOP_BLOCKS) + 1
        about = _about(clause)
        if about is None:
            return True
        read = self.read.get(about)
        return read <= blocks if read is not None else self.blocks is not None and self.blocks < blocks


def _about(clause: str) -> str | None:
    return _ABOUT.get(clause) or _ABOUT.get(clause.partition(".")[0])


def watch(task: Task, engine: EmulatorEngine) -> Watched:
    """Boot some guests, watched; a run ends where its watching does."""
    first = _watch(task, task.options, engine, INSTRUCTIONS)
    found = {(one.clause, one.grade): one for one in first.findings}
    read = dict(first.read)
    known = {profile.name: profile.deviations for profile in profiles(task.kernel, task.options)}
    for names in _GUESTS:
        present = [name for name in names if name in known]
        changed = dict.fromkeys(deviation for name in present for deviation in known[name])
        options = applied(task.options, changed)
        other = _watch(task, options, engine, _FIRST)
        read |= {name: min(at, read.get(name, at)) for name, at in other.read.items()}
        for one in other.findings:
            # An exception there may be how the kernel dies of something else: profiles tell.
            if one.clause != "idt" and (one.clause, one.grade) not in found:
                what = one.what + (_shown(task, options, one.clause, known, engine) if one.grade == "violation" else "")
                found[one.clause, one.grade] = replace(one, what=what, profile=" ".join(present))
    return Watched(tuple(found.values()), read, first.blocks)


def _shown(
    task: Task, options: BootOptions, clause: str, known: dict[str, tuple[Deviation, ...]], engine: EmulatorEngine
) -> str:
    """Return what becomes of a guest where the processor, too, is otherwise in what the clause is about, if it fails.

    No profile has both: where a finding is of another guest than libxenguest's, all of them may boot.
    """
    for name in _PROCESSORS if task.way else ():
        deviations = [deviation for deviation in known[name] if deviation.clause == clause]
        made = boot(task.kernel, applied(options, deviations), engine, task.way, task.limits) if deviations else None
        if made and not made.reached:
            label = " and ".join(deviation.label for deviation in deviations)
            return f"; with {label} there, as in profile {name}, {made.reason}"
    return ""


def _watch(task: Task, options: BootOptions, engine: EmulatorEngine, limit: int) -> Watched:
    seconds = _SECONDS if is_telling(task.way) or not task.way else _BRIEF
    image = build(plan(task.kernel, replace(options, timeout=seconds)))
    try:
        machines: list[Machine] = []
        monitored = MonitoredEngine(engine, limit, over=lambda: machines[0].end("interrupted", "the watching is over"))
        machines.append(Machine(image, monitored, lambda _data: None))
        vcpu = machines[0].vm.vcpus[0]
        ending = machines[0].run().ending
        blocks = vcpu.executed if ending in ("interrupted", "deadline") else None
        return Watched(monitored.findings, monitored.read, blocks)
    finally:
        image.ram.close()
