"""A plan as an SVG picture of guest-physical memory.

One file that is legible from 300 px of width up, in light and dark: positions are pixels, there is no viewBox, so the
text is never scaled; a wide view shows the reasons as well. Low addresses are on top; a region's height grows with the
logarithm of its size, so that a structure of 56 bytes is as visible as a kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from math import log2

from pvh.abi.x86 import PAGE_SIZE
from pvh.plan.lettering import shorten, wrap_lines
from pvh.plan.record import Plan
from pvh.plan.regions import Region, regions
from pvh.plan.units import printable, size_text

# Columns, in pixels. Everything but the reasons ends before 300.
_LEFT, _ADDRESS_END, _BAR, _BAR_WIDTH, _NAME, _REASON = 14, 94, 106, 38, 158, 322
_NARROW, _WIDE = 300, 900  # the least width, and that from which the reasons are shown, as in the style
_TEXT_SIZE, _SOFT_SIZE = 13, 12  # font sizes, as in the style
_LINE, _ROW, _PER_DOUBLING, _HEAD = 15, 38, 3.0, 113

_STYLE = """
.pvh-plan{--paper:#fff;--ink:#1b2330;--soft:#566173;--rule:#dde2e9;--kernel:#3569d3;--module:#158a64;
--start-info:#d2701a;--acpi:#8250c4;--special:#c03a78;--hole:#98a2b0;--free:#e6ebf2;--slack:#d8cdea;
font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;background:var(--paper)}
@media (prefers-color-scheme:dark){.pvh-plan{--paper:#12161d;--ink:#e8ecf2;--soft:#9aa6b6;--rule:#272e39;
--kernel:#6f9bf2;--module:#3fc297;--start-info:#f0a052;--acpi:#b58bec;--special:#ee7bac;--hole:#647083;--free:#232b37;
--slack:#3b3450}}
.pvh-plan text{fill:var(--ink);font-size:13px}
.pvh-plan .title{font-size:16px;font-weight:600}
.pvh-plan .soft,.pvh-plan .why{fill:var(--soft);font-size:12px}
.pvh-plan .address{fill:var(--soft);font:11px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
text-anchor:end}
.pvh-plan .quiet{fill:var(--soft)}
.pvh-plan .why{display:none}
@media (min-width:900px){.pvh-plan .why{display:inline}}
""".strip()

_HATCH = (
    '<pattern id="pvh-hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="2" height="6" style="fill:var(--hole)"/></pattern>'
)


def render_svg(plan: Plan) -> str:
    """Return the picture, a complete SVG document that refers to nothing outside itself."""
    rows = regions(plan)
    body: list[str] = []
    y = float(_HEAD)
    for row in rows:
        height = _height(row)
        body += _row(plan, row, y, height)
        y += height
    body.append(_rule(y))
    end = rows[-1].end
    body.append(_text(_ADDRESS_END, y + 15, "address", f"{end:#x}"))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="pvh-plan" width="100%" height="{y + 32:.0f}" role="img">',
            f"<title>Guest-physical memory of {_xml(_file_name(plan))}</title>",
            f"<style>{_STYLE}</style>",
            f"<defs>{_HATCH}</defs>",
            '<rect width="100%" height="100%" style="fill:var(--paper)"/>',
            *_head(plan),
            *body,
            "</svg>",
            "",
        ]
    )


def _height(row: Region) -> float:
    """Return a region's height in pixels: room for its text, and more by the logarithm of its pages."""
    lines = len(_reason(row))
    return max(_ROW, _LINE * lines + 12) + _PER_DOUBLING * log2(max(row.size / PAGE_SIZE, 1))


def _reason(row: Region) -> list[str]:
    return wrap_lines(printable(row.reason), _SOFT_SIZE, _WIDE - _REASON - _LEFT)


def _head(plan: Plan) -> Iterator[str]:
    options = plan.options
    cpus = f"{options.vcpus} vCPU{'s' if options.vcpus > 1 else ''}"
    name = shorten(printable(_file_name(plan)), _SOFT_SIZE, _NARROW - _LEFT)
    yield _text(_LEFT, 26, "title", "Guest-physical memory")
    yield _text(_LEFT, 46, "soft", name)
    yield _text(_LEFT, 63, "soft", f"{size_text(options.memory)}, {cpus}, {options.abi}, {options.platform}")
    yield _text(_LEFT, 80, "soft", f"entry {plan.entry:#x}, EBX {plan.start_info.paddr:#x}")
    yield _text(_LEFT, 97, "soft", "low addresses on top, height by log of size")


def _row(plan: Plan, row: Region, y: float, height: float) -> Iterator[str]:
    yield _rule(y)
    fill = "url(#pvh-hatch)" if row.kind in ("hole", "none") else f"var(--{row.kind})"
    yield (
        f'<rect x="{_BAR}" y="{y + 1:.1f}" width="{_BAR_WIDTH}" height="{height - 2:.1f}" rx="3" style="fill:{fill}">'
        f"<title>{_xml(row.name)}: {row.start:#x} to {row.end - 1:#x}</title></rect>"
    )
    for address in (plan.entry, plan.start_info.paddr):
        if row.start <= address < row.end:
            yield f'<path d="M{_BAR - 1} {y + 11:.1f}l-7 -4v8z" style="fill:var(--ink)"/>'
    owned = row.kind not in ("free", "slack", "none")
    yield _text(_ADDRESS_END, y + 15, "address", f"{row.start:#x}")
    yield _text(_NAME, y + 15, "name" if owned else "quiet", shorten(row.name, _TEXT_SIZE, _NARROW - _NAME))
    yield _text(_NAME, y + 30, "soft", size_text(row.size) + (f", {row.kind}" if owned else ""))
    for index, line in enumerate(_reason(row)):
        yield _text(_REASON, y + 15 + _LINE * index, "why", line)


def _rule(y: float) -> str:
    return f'<rect x="{_LEFT}" y="{y:.1f}" width="100%" height="1" style="fill:var(--rule)"/>'


def _text(x: float, y: float, kind: str, content: str) -> str:
    return f'<text x="{x}" y="{y:.1f}" class="{kind}">{_xml(content)}</text>'


def _xml(text: str) -> str:
    return escape(printable(text))


def _file_name(plan: Plan) -> str:
    return plan.kernel.path.rpartition("/")[2]
