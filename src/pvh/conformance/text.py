"""A report as text, for a terminal or a log."""

from __future__ import annotations

from textwrap import fill
from unicodedata import category

from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvh.conformance.checker import Attempt
    from pvh.conformance.finding import Finding, Instruction, Parting, Read
    from pvh.conformance.report import Report
    from pvh.conformance.verdict import Verdict


NOTHING_SEEN = (
    "It says nothing, makes no hypercall and asks for no end: whether it boots cannot be told, only that it comes to no"
    " bad end. Give --until what tells it."
)


def attempt_line(one: Attempt, *, telling: bool = True) -> str:
    """Return a profile's line: whether it booted, how long it took, and what it fails of.

    telling  the boot shows more than that nothing went wrong
    """
    took = f"{one.boot.seconds * 1000:.0f} ms"
    if one.passed:
        return f"{one.profile.name:<14} {'boots' if telling else 'runs '}   {took:>9}   {one.profile.about}"
    labels = "; ".join(" and ".join(deviation.label for deviation in cause.deviations) for cause in one.causes)
    return f"{one.profile.name:<14} FAILS   {took:>9}   {labels or printable(one.boot.reason)}"


def render(report: Report, width: int) -> str:
    """Return everything that a person wants to know beside the profiles' lines, in lines of about that width."""
    return "\n".join(_lines(report, max(60, width))) + "\n"


def _lines(report: Report, width: int) -> Iterator[str]:
    if report.refused:
        yield f"not booted: {report.refused}"
    elif report.booted is None:
        yield fill(NOTHING_SEEN, width)
    elif not report.booted:
        kind = report.attempts[0].boot
        yield f"it does not boot, not even with libxenguest's values: {printable(kind.reason)}"
        yield from (f"  {printable(line)}" for line in kind.trail)
    for verdict in report.violated:
        yield ""
        yield f"violated: {verdict.clause.id}"
        yield fill(verdict.clause.text, width, initial_indent="  ", subsequent_indent="  ")
        yield from _evidence(verdict, width, "violation")
    notes = [verdict for verdict in report.verdicts if any(f.grade == "note" for f in verdict.findings)]
    if notes:
        yield "\nworth knowing:"
    for verdict in notes:
        yield from _evidence(verdict, width, "note")
    yield ""
    for state in ("upheld", "not exercised"):
        names = [verdict.clause.id for verdict in report.verdicts if verdict.state == state]
        if names:
            told = f"{state}, {len(names)}: {' '.join(names)}"
            yield fill(told, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    yield summary(report)


def _evidence(verdict: Verdict, width: int, grade: str) -> Iterator[str]:
    """Yield each piece of evidence once, with all profiles that gave it."""
    said: dict[str, list[Finding]] = {}
    for finding in verdict.findings:
        if finding.grade == grade:
            said.setdefault(finding.what, []).append(finding)
    for what, findings in said.items():
        told = f"{verdict.clause.id if grade == 'note' else _origin(findings)}: {what}"
        yield fill(printable(told), width, initial_indent="  ", subsequent_indent="    ")
        shown = next((finding for finding in findings if finding.parting), findings[0])
        yield from (f"    {printable(line)}" for line in where_lines(shown))


def where_lines(finding: Finding) -> Iterator[str]:
    """Yield lines for the instructions that a finding names: where the run ended, and where it parted from another."""
    at, parting = finding.at, finding.parting
    if at and not (parting and parting.fatal):
        yield f"{'ends ' if finding.origin == 'profile' else ''}at {_place(at)}"
    if not parting:
        return
    if parting.fatal:
        yield f"goes where it goes when it boots, up to {_place(parting.at)}"
    else:
        yield f"decided at {_place(parting.at)}"
    other = [read for read in parting.reads if read.value not in read.elsewhere]
    yield from (f"  {_read(read, parting)}" for read in other or parting.reads)
    if parting.branch != parting.at:
        yield f"goes another way than when it boots at {_place(parting.branch)}"
    elif not parting.fatal:
        yield "and goes another way there than when it boots"


def _read(read: Read, parting: Parting) -> str:
    what = read.place if read.address is None else f"{read.place} (physical {read.address:#x})"
    if read.value is None:
        return f"{what}, at {_place(read.by)}"
    elsewhere = ", ".join(f"{value:#x}" for value in read.elsewhere) + (", ..." if read.more else "")
    there = f"; when it boots {elsewhere}" if elsewhere else ""
    by = f", loaded at {_place(read.by)}" if read.by != parting.at else ""
    return f"{what}: {read.value:#x}{there}{by}"


def _place(at: Instruction) -> str:
    return f"{f'{at.address:#x} {at.symbol}'.rstrip()}: {at.code.hex()} {at.disassembly}".rstrip()


def _origin(findings: list[Finding]) -> str:
    names = [finding.profile for finding in findings if finding.profile]
    told = f"profile{'s' * (len(names) > 1)} {', '.join(names)}"
    if findings[0].origin == "monitor":
        return f"monitor, in the guest of {told}" if names else "monitor"
    return told if names else findings[0].origin


def summary(report: Report) -> str:
    """Return the last line."""
    states = [verdict.state for verdict in report.verdicts]
    counted = ", ".join(f"{states.count(state)} {state}" for state in ("upheld", "violated", "not exercised"))
    boots = sum(one.passed for one in report.attempts)
    boot = "boot" if report.booted is not None else "come to no bad end"
    return f"{counted}; {boots} of {len(report.attempts)} profiles {boot} on {report.engine} (seed {report.seed})"


def printable(text: str) -> str:
    """Return text of a guest without what a terminal would act on."""
    return "".join(char if category(char)[0] != "C" else "?" for char in text)
