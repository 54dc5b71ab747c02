"""`pvh inspect --loaders`: how other loaders would boot a file."""

from __future__ import annotations

import textwrap

from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.kernel.loaders import LoaderVerdict

_KNOWN = {"run": "seen in the program", "read": "read in its source", "unverified": "NOT VERIFIED"}


SCHEMA = "pvh.loaders/1"


def as_rows(found: tuple[LoaderVerdict, ...]) -> list[dict[str, object]]:
    """Return the verdicts as --json prints them."""
    fields = ("loader", "pvh", "path", "entry", "says", "why", "source", "verified")
    return [{name: getattr(verdict, name) for name in fields} for verdict in found]


def as_table(path: str, found: tuple[LoaderVerdict, ...], width: int) -> str:
    """Return the verdicts for people, in lines of width columns."""
    names = max(len(verdict.loader) for verdict in found)
    lines = [f"{path}: {sum(verdict.pvh for verdict in found)} of {len(found)} loaders boot it by PVH", ""]
    for verdict in found:
        first = f"  {'yes' if verdict.pvh else 'no ':3}  {verdict.loader:{names}}  "
        indent = " " * len(first)
        lines += textwrap.wrap(_answer(verdict), width, initial_indent=first, subsequent_indent=indent)
        known = f"{verdict.source} ({_KNOWN[verdict.verified]})"
        lines += textwrap.wrap(known, width, initial_indent=indent, subsequent_indent=indent)
    return "\n".join(lines)


def _answer(verdict: LoaderVerdict) -> str:
    """Return what a loader does, in one sentence."""
    if verdict.pvh:
        return f"{verdict.path}, entry {verdict.entry:#x}"
    why = f" ({verdict.why})" if verdict.why else ""
    if verdict.path:
        return f"boots it otherwise: {verdict.path}{why}"
    return f"prints: {verdict.says}{why}" if verdict.says else f"refuses it{why}"
