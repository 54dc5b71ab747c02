"""Verdicts: for every clause that binds a kernel, whether it is upheld, violated, or was not put to the test."""

from __future__ import annotations

from pvh.conformance.clauses import Clause, of_kernel
from pvh.conformance.finding import Finding
from pvh.hints import TYPE_CHECKING, Literal
from pvh.plan import layout
from pvh.record import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvh.conformance.checker import Attempt, Cause
    from pvh.conformance.finding import Instruction
    from pvh.conformance.watching import Watched
    from pvh.plan.record import Plan

State = Literal["upheld", "violated", "not exercised"]

_POISON = "memory.poison"
# What every boot has, so that a kernel that needs more fails in all of them.
_ALWAYS = ("entry.mode", "cr0", "cr4", "devices")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of one clause.

    by        what put it to the test: names of profiles, `monitor`, `file`
    findings  the evidence of a violation, and what else is worth knowing
    """

    clause: Clause
    state: State
    by: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def culprit(self) -> Instruction | None:
        """The instruction that broke it; None: it was not broken, or by no instruction that is known."""
        return next((finding.culprit for finding in self.findings if finding.culprit), None)


def verdicts(
    plan: Plan | None,
    tried: tuple[Attempt, ...],
    findings: tuple[Finding, ...],
    watched: Watched | None = None,
    *,
    telling: bool = True,
) -> tuple[Verdict, ...]:
    """Return a verdict for each clause that binds the kernel, in the table's order.

    Where a kernel does not boot with libxenguest's values, nothing is put to the test but its file; where boots tell
    nothing, that and what the monitor saw.

    plan      of the boot as libxenguest does it; None when there was none
    findings  of the file and of the monitor
    watched   what the monitor saw; None where there is none
    telling   a boot shows more than that nothing went wrong
    """
    evidence = (*findings, *(finding for one in tried for cause in one.causes for finding in _of(cause, one)))
    exercised: dict[str, list[str]] = {}
    if tried and tried[0].passed:  # what does not get anywhere puts nothing to the test
        longest = max(one.boot.blocks or 0 for one in tried)
        for clause, by in _exercised(plan, tried) if telling else ():
            if watched is None or watched.exercised_by(longest, clause):
                exercised.setdefault(clause, []).append(by)
        for clause in watched.clauses if watched else ():
            exercised.setdefault(clause, []).append("monitor")
    for one in of_kernel():
        # A file that is refused may have neither notes nor an entry to be right about.
        if one.part == "file" and (plan or any(finding.clause == one.id for finding in findings)):
            exercised.setdefault(one.id, []).append("file")
    return tuple(_verdict(clause, exercised.get(clause.id, []), evidence) for clause in of_kernel())


def _verdict(clause: Clause, by: list[str], evidence: tuple[Finding, ...]) -> Verdict:
    findings = tuple(finding for finding in evidence if finding.clause == clause.id)
    if any(finding.grade == "violation" for finding in findings):
        return Verdict(clause, "violated", tuple(by), findings)
    return Verdict(clause, "upheld" if by else "not exercised", tuple(by), findings)


def _exercised(plan: Plan | None, tried: tuple[Attempt, ...]) -> Iterator[tuple[str, str]]:
    """Yield clauses that were put to the test, with the profile's name.

    A profile that fails has its causes; without them it boots, or nothing can be told of the rest.
    """
    for one in tried:
        causing = {deviation for cause in one.causes for deviation in cause.deviations}
        yield from ((d.clause, one.profile.name) for d in one.profile.deviations if one.explained or d in causing)
    if plan is None:
        return
    kind = tried[0].profile.name
    info = plan.start_info
    given = (
        ("cmdline.absent", not info.cmdline_paddr),
        ("modules.absent", not info.modules),
        ("modules.cmdline-absent", any(not module.cmdline_paddr for module in info.modules)),
        ("rsdp.placement", info.rsdp_paddr >= layout.ACPI_TABLES),
        ("memory.legacy", any(_poisoned(one) and one.passed for one in tried)),
        *((clause, True) for clause in _ALWAYS),
    )
    yield from ((clause, kind) for clause, holds in given if holds)


def _poisoned(one: Attempt) -> bool:
    return any(deviation.clause == _POISON for deviation in one.profile.deviations)


def _of(cause: Cause, one: Attempt) -> Iterator[Finding]:
    """Yield what a cause proves: a violation of the clause that allows its deviation."""
    labels = " and ".join(deviation.label for deviation in cause.deviations)
    made = cause.boot
    end = made.reason if made.ending in ("triple-fault", "crash", "hang", "engine") or not made.missing else (
        f"it does not get to where {made.missing}: {made.reason}"
    )  # fmt: skip
    what = f"with {labels}, {end}"
    yield Finding(cause.clause, what, "violation", "profile", made.at, one.profile.name, cause.parting)
