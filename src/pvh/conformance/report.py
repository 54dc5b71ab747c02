"""check: the whole of it, from a kernel to a report; and the report as plain data."""

from __future__ import annotations

from dataclasses import asdict

from pvh.conformance.checker import Attempt, Cause, Task, attempts, mappable, trial
from pvh.conformance.lints import lint
from pvh.conformance.milestone import is_telling
from pvh.conformance.verdict import Verdict, verdicts
from pvh.errors import Refused
from pvh.hints import TYPE_CHECKING, Any
from pvh.plan.planner import plan
from pvh.record import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvh.conformance.boot import Boot
    from pvh.conformance.finding import Finding, Instruction
    from pvh.conformance.milestone import Milestone
    from pvh.conformance.watching import Watched
    from pvh.engines.engine import Engine
    from pvh.plan.record import Plan

SCHEMA = 1
VIOLATED = 15  # exit status


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found.

    way       what tells that the kernel booted
    task      what the trials had in common, to boot it once more as they did; None when the kernel is refused
    plan      of the boot as libxenguest does it; None when the kernel is refused
    attempts  one for each profile that was tried, kind's first; none when the kernel is refused
    refused   why it is no guest at all, "" if it is one
    """

    path: str
    engine: str
    seed: int
    way: tuple[Milestone, ...]
    plan: Plan | None
    attempts: tuple[Attempt, ...]
    verdicts: tuple[Verdict, ...]
    refused: str = ""
    task: Task | None = None

    @property
    def violated(self) -> tuple[Verdict, ...]:
        """Verdicts of clauses that are broken."""
        return tuple(verdict for verdict in self.verdicts if verdict.state == "violated")

    @property
    def booted(self) -> bool | None:
        """Whether the kernel boots as libxenguest boots it; None: it does nothing that tells."""
        if self.attempts and self.attempts[0].passed:
            return True if is_telling(self.way) else None
        return False

    @property
    def status(self) -> int:
        """Exit status: 0, VIOLATED, or the refusal's 20."""
        if self.refused:
            return Refused.status
        return 0 if self.booted and not self.violated else VIOLATED


def check(
    task: Task,
    engine: Engine,
    seed: int,
    jobs: int,
    *,
    only: Callable[[str], bool],
    tell: Callable[[Attempt | Task | str, int], None],
) -> Report:
    """Check a kernel: its file, and its boots under each profile whose name `only` takes.

    tell is given the task once its milestone is settled, and each attempt as it comes, with how many there will be;
    before and behind that what is done, in words, with 0.
    """
    file = lint(task.kernel, task.options)
    try:
        made = plan(task.kernel, task.options)
    except Refused as error:
        of_file = verdicts(None, (), file)
        return Report(task.kernel.path, engine.name, seed, task.way, None, (), of_file, str(error))
    task = Task(mappable(task.kernel), task.options, task.way, task.limits)
    tell("booting it as libxenguest does", 0)
    task, kind = trial(task, engine)
    tell("watching its first instructions", 0)
    watched = _watched(task, engine)
    seen = watched.findings if watched else ()
    done: list[Attempt] = []
    for one, count in attempts(task, kind, seed, jobs, engine, only):
        if not done:
            tell(task, count)
        done.append(one)
        tell(one, count)
    if watched and any(one.causes for one in done):
        tell("looking where those that fail part from the first", 0)
    tried = _parted(task, tuple(done), seen) if watched else tuple(done)
    of_all = verdicts(made, tried, (*file, *seen), watched, telling=is_telling(task.way))
    return Report(task.kernel.path, engine.name, seed, task.way, made, tried, of_all, task=task)


def _watched(task: Task, engine: Engine) -> Watched | None:
    """Return what the monitor sees; None on an engine that it is not in."""
    from pvh.engines.emulator.engine import EmulatorEngine

    if not isinstance(engine, EmulatorEngine):
        return None
    from pvh.conformance.watching import watch

    return watch(task, engine)


def _parted(task: Task, tried: tuple[Attempt, ...], seen: tuple[Finding, ...]) -> tuple[Attempt, ...]:
    """Return the attempts, with where a boot parts from kind's, once for each clause that the monitor saw no use of."""
    from pvh.conformance.parting import Partings

    partings = Partings(task)
    known = {finding.clause for finding in seen if finding.culprit}

    def with_parting(cause: Cause) -> Cause:
        if cause.clause in known:
            return cause
        found = partings.of(cause.deviations)
        if found:
            known.add(cause.clause)
        return replace(cause, parting=found)

    return tuple(replace(one, causes=tuple(map(with_parting, one.causes))) for one in tried)


def as_dict(report: Report) -> dict[str, Any]:
    """Return the report for --json; docs/check.schema.json says what stands in it."""
    return {
        "schema": SCHEMA,
        "kernel": report.path,
        "engine": report.engine,
        "seed": report.seed,
        "milestone": [str(milestone) for milestone in report.way],
        "refused": report.refused or None,
        "booted": report.booted,
        "status": report.status,
        "profiles": [_attempt(one) for one in report.attempts],
        "clauses": [_verdict(verdict) for verdict in report.verdicts],
    }


def _attempt(one: Attempt) -> dict[str, Any]:
    return {
        "name": one.profile.name,
        "about": one.profile.about,
        "lenient": one.profile.lenient,
        "passed": one.passed,
        "deviations": [{"clause": d.clause, "label": d.label} for d in one.profile.deviations],
        "boot": _boot(one.boot),
        "causes": [
            {"deviations": [d.label for d in cause.deviations], "boot": _boot(cause.boot)} for cause in one.causes
        ],
    }


def _boot(made: Boot) -> dict[str, Any]:
    return {
        "reached": made.reached,
        "missing": made.missing or None,
        "ending": made.ending,
        "reason": made.reason,
        "seconds": round(made.seconds, 6),
        "blocks": made.blocks,
        "exits": made.exits,
        "console": made.console.decode(errors="replace"),
        "events": [asdict(event) for event in made.events],
        "trail": list(made.trail),
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    clause = verdict.clause
    return {
        "id": clause.id,
        "text": clause.text,
        "source": clause.source,
        "verdict": verdict.state,
        "by": list(verdict.by),
        "culprit": _where(verdict.culprit),
        "findings": [_finding(finding) for finding in verdict.findings],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    parting = finding.parting
    return {
        "what": finding.what,
        "grade": finding.grade,
        "origin": finding.origin,
        "profile": finding.profile or None,
        "at": _where(finding.at),
        "parting": {
            "at": _where(parting.at),
            "branch": _where(parting.branch),
            "fatal": parting.fatal,
            "reads": [{**asdict(read), "by": _where(read.by)} for read in parting.reads],
        }
        if parting
        else None,
    }


def _where(at: Instruction | None) -> dict[str, Any] | None:
    if at is None:
        return None
    return {"address": at.address, "symbol": at.symbol, "bytes": at.code.hex(), "disassembly": at.disassembly}
