"""A plan as a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from pvh.abi.start_info import MEMMAP_NAMES
from pvh.plan.record import Plan
from pvh.plan.regions import regions
from pvh.plan.units import printable, size_text

_LEAST_REASON = 30  # a reason gets a column of its own when it has at least this many characters


def render_text(plan: Plan, width: int = 100) -> str:
    """Return the plan as lines of at most width characters (or of what its numbers and names need), low to high."""
    return "\n".join([*_head(plan), "", *_table(plan, width), "", *_map(plan), *_warnings(plan, width)]) + "\n"


def _head(plan: Plan) -> Iterator[str]:
    options = plan.options
    cpus = f"{options.vcpus} vCPU{'s' if options.vcpus > 1 else ''}"
    yield printable(plan.kernel.path)
    yield f"{size_text(options.memory)} of RAM, {cpus}, start_info {options.abi}, platform {options.platform}"
    yield f"entry {plan.entry:#x}, EBX (start_info) {plan.start_info.paddr:#x}"


def _table(plan: Plan, width: int) -> Iterator[str]:
    rows = regions(plan)
    digits = max(8, len(f"{rows[-1].end - 1:x}"))
    names = max(len(row.name) for row in rows)
    lead = 2 * digits + 5 + 2 + 10 + 2 + 10 + 2 + names
    room = width - lead - 2
    beside = room >= _LEAST_REASON
    head = f"{'guest-physical range':<{2 * digits + 5}}  {'size':>10}  {'kind':<10}  {'name':<{names}}"
    yield f"{head}  why there" if beside else head.rstrip()
    for row in rows:
        span = f"{row.start:#0{digits + 2}x}-{row.end - 1:#0{digits + 2}x}"
        line = f"{span}  {size_text(row.size):>10}  {row.kind:<10}  {row.name:<{names}}"
        reason = wrap(printable(row.reason), room if beside else max(width - 4, _LEAST_REASON))
        if beside and reason:
            line += f"  {reason.pop(0)}"
        yield line.rstrip()
        yield from (" " * (lead + 2 if beside else 4) + more for more in reason)


def _map(plan: Plan) -> Iterator[str]:
    yield "memory map"
    for entry in plan.memory_map:
        kind = MEMMAP_NAMES.get(entry.type, f"type {entry.type:#x}")
        yield f"  {entry.addr:#018x}-{entry.end - 1:#018x}  {size_text(entry.size):>10}  {kind}"


def _warnings(plan: Plan, width: int) -> Iterator[str]:
    for warning in plan.warnings:
        yield ""
        yield from wrap(f"warning: {printable(warning)}", max(width, _LEAST_REASON))
