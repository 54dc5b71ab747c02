"""A report as one HTML file, which refers to nothing outside itself: verdicts, profiles, guest memory, the boot's time.

Tables become blocks where the page is narrow, so that nothing is clipped; bytes and addresses break anywhere.
"""

from __future__ import annotations

from html import escape

from pvh.conformance.text import NOTHING_SEEN, printable, summary, where_lines
from pvh.hints import TYPE_CHECKING
from pvh.plan.svg import render_svg
from pvh.timeline.html import render_section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvh.conformance.checker import Attempt
    from pvh.conformance.finding import Finding
    from pvh.conformance.report import Report
    from pvh.conformance.verdict import Verdict
    from pvh.timeline.record import Timeline

_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b2330;--soft:#566173;--rule:#dde2e9;--good:#0f6e4f;--bad:#b3261e;
--open:#6a5200}
@media (prefers-color-scheme:dark){:root{--paper:#12161d;--ink:#e8ecf2;--soft:#9aa6b6;--rule:#272e39;--good:#52d3a4;
--bad:#ff8a80;--open:#e4c35a}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:72rem;margin:0 auto;padding:1rem}
h1{font-size:1.3rem;margin:.2rem 0}
h2{font-size:1.1rem;margin:1.8rem 0 .5rem}
h1,h2,p,td,th,li,code{overflow-wrap:anywhere}
p{margin:.4rem 0}
.soft{color:var(--soft)}
.upheld{color:var(--good)}
.violated{color:var(--bad);font-weight:600}
.not-exercised{color:var(--open)}
code{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
table{border-collapse:collapse;width:100%;table-layout:fixed}
th{text-align:left;color:var(--soft);font-weight:500}
td,th{padding:.35rem .8rem .35rem 0;border-bottom:1px solid var(--rule);vertical-align:top}
th:nth-child(1){width:15rem}
th:nth-child(2){width:9rem}
ul{margin:.2rem 0;padding-left:1.1rem}
figure{margin:0 -1rem}
@media (max-width:720px){table,tbody,tr,td{display:block;width:100%}thead{display:none}
td{border:0;padding:.1rem 0}tr{border-bottom:1px solid var(--rule);padding:.5rem 0;display:block}}
@media print{tr,figure{break-inside:avoid-page}h2{break-after:avoid}main{max-width:none}}
""".strip()

_ORDER = ("violated", "not exercised", "upheld")


def render_html(report: Report, timeline: Timeline | None) -> str:
    """Return the whole page. timeline is of the boot as libxenguest does it, None when there was none."""
    title = f"pvh check {report.path}"
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">',
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>{_text(title)}</h1>",
        *_head(report),
        "<h2>Verdicts</h2>",
        *_table(("clause", "verdict", "what it says, and what shows it"), _verdicts(report)),
    ]
    if report.attempts:
        parts += [
            "<h2>Profiles</h2>",
            *_table(("profile", "boots", "what is otherwise"), map(_attempt, report.attempts)),
        ]
    if report.plan:
        parts += ["<h2>Guest memory</h2>", f"<figure>{render_svg(report.plan)}</figure>"]
    if timeline:
        parts += ["<h2>The boot in time</h2>", render_section(timeline)]
    return "\n".join([*parts, "</main></body></html>", ""])


def _text(text: str) -> str:
    return escape(printable(text))


def _head(report: Report) -> Iterator[str]:
    yield f"<p>{_text(summary(report))}</p>"
    if report.refused:
        yield f'<p class="violated">not booted: {_text(report.refused)}</p>'
    elif report.booted is None:
        yield f'<p class="violated">{_text(NOTHING_SEEN)}</p>'
    elif not report.booted:
        reason = report.attempts[0].boot.reason if report.attempts else ""
        yield f'<p class="violated">it does not boot, not even with libxenguest\'s values: {_text(reason)}</p>'
    way = ", then ".join(str(milestone) for milestone in report.way)
    if way and report.booted is not None:
        yield f'<p class="soft">booted when {_text(way)}</p>'


def _table(heads: tuple[str, ...], rows: Iterator[str] | map[str]) -> Iterator[str]:
    yield "<table><thead><tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr></thead><tbody>"
    yield from rows
    yield "</tbody></table>"


def _verdicts(report: Report) -> Iterator[str]:
    """Yield rows, what is violated first."""
    for verdict in sorted(report.verdicts, key=lambda verdict: _ORDER.index(verdict.state)):
        yield _verdict(verdict)


def _verdict(verdict: Verdict) -> str:
    clause = verdict.clause
    shown: dict[str, Finding] = {}
    for finding in verdict.findings:
        if finding.what not in shown or finding.parting:
            shown[finding.what] = finding
    evidence = "".join(f"<li>{_finding(finding, verdict)}</li>" for finding in shown.values())
    told = f'{_text(clause.text)} <span class="soft">{_text(clause.source)}</span>'
    by = f'<p class="soft">by {_text(", ".join(dict.fromkeys(verdict.by)))}</p>' if verdict.by else ""
    state = f'<td class="{verdict.state.replace(" ", "-")}">{verdict.state}</td>'
    listed = f"<ul>{evidence}</ul>" if evidence else ""
    return f"<tr><td><code>{_text(clause.id)}</code></td>{state}<td>{told}{listed}{by}</td></tr>"


def _finding(finding: Finding, verdict: Verdict) -> str:
    profiles = [other.profile for other in verdict.findings if other.what == finding.what and other.profile]
    where = f"profile {', '.join(profiles)}" if profiles else finding.origin
    text = f'<span class="soft">{_text(where)}:</span> {_text(finding.what)}'
    return text + "".join(f"<br><code>{_text(line)}</code>" for line in where_lines(finding))


def _attempt(one: Attempt) -> str:
    labels = "; ".join(" and ".join(deviation.label for deviation in cause.deviations) for cause in one.causes)
    state = '<td class="upheld">yes' if one.passed else '<td class="violated">no'
    cause = f'<p class="violated">fails of: {_text(labels or one.boot.reason)}</p>' if not one.passed else ""
    took = f'<span class="soft">{one.boot.seconds * 1000:.0f} ms</span>'
    about = f"<td>{_text(one.profile.about)}{cause}</td>"
    return f"<tr><td><code>{_text(one.profile.name)}</code></td>{state} {took}</td>{about}</tr>"
