"""A timeline as one HTML file: a lane for each vCPU, the console's lines with their times, exits by kind and number.

It refers to nothing outside itself. Lanes stretch with the page; whatever is text is the page's own, and wraps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from html import escape
from math import log1p

from pvh.timeline.record import KINDS, Timeline

_BINS, _ROW = 480, 9  # columns of a lane, and the height of a kind's row in pixels
_LEVELS = 4  # shades
_MOST_ROWS = 40  # of the table of exits

_STYLE = """
.pvh-timeline{--paper:#fff;--ink:#1b2330;--soft:#566173;--rule:#dde2e9;--lane:#f2f5f9;--k0:#3569d3;--k1:#d2701a;
--k2:#8250c4;--k3:#c03a78;--k4:#98a2b0;--k5:#c22f2f;--console:#158a64;background:var(--paper);color:var(--ink);
font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
@media (prefers-color-scheme:dark){.pvh-timeline{--paper:#12161d;--ink:#e8ecf2;--soft:#9aa6b6;--rule:#272e39;
--lane:#1a202a;--k0:#6f9bf2;--k1:#f0a052;--k2:#b58bec;--k3:#ee7bac;--k4:#647083;--k5:#f26d6d;--console:#3fc297}}
.pvh-timeline h2{font-size:15px;margin:1.4em 0 .4em}
.pvh-timeline .soft{color:var(--soft)}
.pvh-timeline .lane{margin:.5em 0}
.pvh-timeline .name{color:var(--soft);font-size:12px}
.pvh-timeline .lane svg{display:block;width:100%;background:var(--lane)}
.pvh-timeline .axis{display:flex;justify-content:space-between;color:var(--soft);font-size:11px}
.pvh-timeline .key{display:flex;flex-wrap:wrap;gap:.2em 1.1em;margin:0;padding:0;list-style:none;font-size:12px}
.pvh-timeline .key i{display:inline-block;width:.8em;height:.8em;margin-right:.4em}
.pvh-timeline .said{max-height:28em;overflow:auto;border:1px solid var(--rule);margin:0;padding:.4em .6em;
font:12px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.pvh-timeline .said div{display:flex;gap:1em}
.pvh-timeline .said time{flex:none;width:6.5em;text-align:right;color:var(--soft)}
.pvh-timeline .said span{min-width:0;overflow-wrap:anywhere;white-space:pre-wrap}
.pvh-timeline table{border-collapse:collapse;font-size:13px}
.pvh-timeline td,.pvh-timeline th{text-align:left;padding:.1em 1em .1em 0;overflow-wrap:anywhere}
.pvh-timeline td:last-child{text-align:right}
@media print{.pvh-timeline .said{max-height:none}}
""".strip()


def render_page(timeline: Timeline, title: str, end: str) -> str:
    """Return the whole page. title: what ran; end: how it ended."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
            f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title>',
            "<style>body{margin:0}main{padding:1em;max-width:75em;margin:auto}h1{font-size:18px;margin:.3em 0}</style>",
            "</head>",
            '<body class="pvh-timeline"><main>',
            f'<h1 style="overflow-wrap:anywhere">{escape(title)}</h1>',
            f'<p class="soft" style="overflow-wrap:anywhere">{escape(end)}</p>',
            render_section(timeline),
            "</main></body></html>",
            "",
        ]
    )


def render_section(timeline: Timeline) -> str:
    """Return the timeline as a part of a page, with its style."""
    return "\n".join(
        [
            f'<section class="pvh-timeline"><style>{_STYLE}</style>',
            _key(timeline),
            *(_lane(f"vCPU {vcpu}", _rows(timeline, vcpu)) for vcpu in timeline.vcpus),
            _lane("console", [("console", Counter(_bin(timeline, line.at) for line in timeline.lines))]),
            _axis(timeline),
            *_said(timeline),
            *_table(timeline),
            "</section>",
        ]
    )


def _bin(timeline: Timeline, at: int) -> int:
    return min(_BINS - 1, at * _BINS // timeline.length)


def _rows(timeline: Timeline, vcpu: int) -> list[tuple[str, Counter[int]]]:
    """Return a vCPU's kinds of exits, those that there are, each with its numbers by column."""
    rows: dict[int, Counter[int]] = {}
    for moment in timeline.moments:
        if moment.vcpu == vcpu:
            rows.setdefault(moment.kind, Counter())[_bin(timeline, moment.at)] += 1
    return [(f"k{kind}", rows[kind]) for kind in sorted(rows)]


def _lane(name: str, rows: list[tuple[str, Counter[int]]]) -> str:
    height = _ROW * max(1, len(rows))
    shapes = "".join(shape for place, row in enumerate(rows) for shape in _shapes(place, *row))
    return (
        f'<div class="lane"><div class="name">{escape(name)}</div>'
        f'<svg viewBox="0 0 {_BINS} {height}" height="{height}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(name)}">{shapes}</svg></div>'
    )


def _shapes(place: int, colour: str, row: Counter[int]) -> Iterator[str]:
    """Draw one row: a shade by the logarithm of a column's number, equal neighbours in one."""
    most = log1p(max(row.values(), default=1))
    shades = [-(-_LEVELS * log1p(row[column]) // most) for column in range(_BINS)]
    start = 0
    for column in range(1, _BINS + 1):
        if column < _BINS and shades[column] == shades[start]:
            continue
        if shades[start]:
            opacity = f' opacity="{shades[start] / _LEVELS:.2g}"' if shades[start] < _LEVELS else ""
            y, height = place * _ROW + 1, _ROW - 2
            yield (
                f'<rect x="{start}" y="{y}" width="{column - start}" height="{height}" '
                f'style="fill:var(--{colour})"{opacity}/>'
            )
        start = column


def _key(timeline: Timeline) -> str:
    kinds = sorted({kind for kind, _ in timeline.counts})
    numbers = Counter[int]()
    for (kind, _), count in timeline.counts.items():
        numbers[kind] += count
    parts = [f'<li><i style="background:var(--k{kind})"></i>{KINDS[kind]} ({numbers[kind]})</li>' for kind in kinds]
    parts.append(f'<li><i style="background:var(--console)"></i>console ({len(timeline.lines)} lines)</li>')
    return f'<ul class="key">{"".join(parts)}</ul>'


def _axis(timeline: Timeline) -> str:
    marks = "".join(f"<span>{_seconds(timeline.length * part // 4)}</span>" for part in range(5))
    return f'<div class="axis">{marks}</div>'


def _seconds(ns: int) -> str:
    return f"{ns / 1e9:.3f} s" if ns < 10_000_000_000 else f"{ns / 1e9:.1f} s"


def _said(timeline: Timeline) -> Iterator[str]:
    if not timeline.lines:
        return
    yield '<h2>Console</h2><div class="said">'
    for line in timeline.lines:
        yield f"<div><time>{_seconds(line.at)}</time><span>{escape(line.text)}</span></div>"
    yield "</div>"


def _table(timeline: Timeline) -> Iterator[str]:
    yield "<h2>Exits</h2><table><tr><th>kind</th><th>what</th><th>number</th></tr>"
    for (kind, what), count in timeline.counts.most_common(_MOST_ROWS):
        yield f"<tr><td>{KINDS[kind]}</td><td>{escape(what)}</td><td>{count}</td></tr>"
    yield "</table>"
    if len(timeline.counts) > _MOST_ROWS:
        yield f'<p class="soft">and {len(timeline.counts) - _MOST_ROWS} more kinds</p>'
    if timeline.dropped:
        yield f'<p class="soft">{timeline.dropped} exits at the end are counted, but not in the lanes</p>'
