"""A timeline as Chrome's trace events, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

"Trace Event Format", JSON Object Format: ts and dur are microseconds; a tid is a vCPU, and one more is the console.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from pvh.timeline.record import KINDS, Timeline

_CONSOLE = 1000
_HALT = KINDS.index("halt")


def render_chrome(timeline: Timeline, title: str) -> str:
    """Return the JSON document."""
    return json.dumps({"displayTimeUnit": "ms", "traceEvents": list(_events(timeline, title))}, separators=(",", ":"))


def _events(timeline: Timeline, title: str) -> Iterator[dict[str, object]]:
    yield _named("process_name", 0, title)
    for vcpu in timeline.vcpus:
        yield _named("thread_name", vcpu, f"vCPU {vcpu}")
    yield _named("thread_name", _CONSOLE, "console")
    asleep: dict[int, int] = {}
    for moment in timeline.moments:
        slept = asleep.pop(moment.vcpu, None)
        if slept is not None:
            yield _slice("halted", moment.vcpu, slept, moment.at)
        if moment.kind == _HALT:
            asleep[moment.vcpu] = moment.at
            continue
        yield _instant(moment.what, moment.vcpu, moment.at, KINDS[moment.kind])
    for vcpu, slept in asleep.items():
        yield _slice("halted", vcpu, slept, timeline.length)
    for line in timeline.lines:
        yield _instant(line.text, _CONSOLE, line.at, "console")


def _named(what: str, tid: int, text: str) -> dict[str, object]:
    return {"ph": "M", "name": what, "pid": 1, "tid": tid, "args": {"name": text}}


def _instant(text: str, tid: int, at: int, kind: str) -> dict[str, object]:
    return {"ph": "i", "s": "t", "name": text, "cat": kind, "pid": 1, "tid": tid, "ts": at / 1000}


def _slice(text: str, tid: int, at: int, end: int) -> dict[str, object]:
    return {"ph": "X", "name": text, "cat": "halt", "pid": 1, "tid": tid, "ts": at / 1000, "dur": (end - at) / 1000}
