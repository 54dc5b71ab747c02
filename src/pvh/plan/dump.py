"""A plan as plain data, for --json and for tools."""

from __future__ import annotations

from dataclasses import asdict

from pvh.abi.start_info import MEMMAP_NAMES
from pvh.hints import Any
from pvh.plan.record import Content, FileBytes, Plan, Range


def as_dict(plan: Plan) -> dict[str, Any]:
    """Return the plan as dictionaries, lists, strings and integers; addresses are guest physical, sizes bytes."""
    kernel = plan.kernel
    return {
        "kernel": {"path": kernel.path, "start": kernel.start, "end": kernel.end, "entry": kernel.entry},
        "options": asdict(plan.options),
        "entry": plan.entry,
        "start_info": asdict(plan.start_info),
        "ranges": [_range(r) for r in plan.ranges],
        "memory_map": [
            {**asdict(entry), "type_name": MEMMAP_NAMES.get(entry.type, "unknown")} for entry in plan.memory_map
        ],
        "backed": [{"start": start, "size": size} for start, size in plan.backed],
        "ram": plan.ram,
        "warnings": list(plan.warnings),
    }


def _range(r: Range) -> dict[str, Any]:
    return {
        "start": r.start,
        "end": r.end,
        "size": r.size,
        "kind": r.kind,
        "name": r.name,
        "reason": r.reason,
        "content": _content(r.content),
    }


def _content(content: Content) -> dict[str, Any] | None:
    """Say what fills a range: null is zeroes, or for start_info's structures what the builder packs."""
    if content is None:
        return None
    if isinstance(content, FileBytes):
        return {"type": "file", "path": content.source.path, "offset": content.offset, "count": content.count}
    return {"type": "literal", "count": len(content.data)}
