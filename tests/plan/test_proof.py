"""The proof refuses every plan that is wrong in one thing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from plan.kernels import MIB, kernel, note
from pvh.abi import elfnote
from pvh.errors import PvhError
from pvh.plan.options import BootOptions
from pvh.plan.planner import plan
from pvh.plan.proof import prove
from pvh.plan.record import MemoryMapEntry, Plan

GOOD = plan(kernel((MIB, 0x2000), notes=(note(elfnote.GUEST_OS, "linux"),)), BootOptions(memory=8192 * MIB))


def moved(name: str, start: int | None = None, size: int | None = None) -> Plan:
    """Return the good plan with one range elsewhere or of another size, still sorted."""
    ranges = [
        replace(r, start=r.start if start is None else start, size=r.size if size is None else size)
        if r.name == name
        else r
        for r in GOOD.ranges
    ]
    return replace(GOOD, ranges=tuple(sorted(ranges, key=lambda r: r.start)))


def mapped(change: Callable[[list[MemoryMapEntry]], list[MemoryMapEntry]]) -> Plan:
    return replace(GOOD, memory_map=tuple(change(list(GOOD.memory_map))))


def test_a_good_plan_is_proved() -> None:
    prove(GOOD)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(moved("start_info", 0x101000), id="two ranges overlap"),
        pytest.param(moved("start_info", size=0), id="a range is empty"),
        pytest.param(moved("start_info", 0xFC100000), id="start_info in no memory"),
        pytest.param(moved("start_info", 0xFFFA0), id="start_info across the end of RAM"),
        pytest.param(moved("RSDP", 0x200000), id="ACPI in RAM"),
        pytest.param(moved("CONSOLE page", 0x200000), id="a special page in RAM"),
        pytest.param(moved("local APIC", 0x200000), id="the local APIC in RAM"),
        pytest.param(moved("local APIC", 0xFBFFF800), id="the local APIC at the edge of RAM"),
        pytest.param(replace(GOOD, ranges=GOOD.ranges[::-1]), id="ranges not sorted"),
        pytest.param(mapped(lambda m: m[::-1]), id="the map is not sorted"),
        pytest.param(mapped(lambda m: [m[0], *m]), id="map entries overlap"),
        pytest.param(mapped(lambda m: m[:-1]), id="RAM is missing"),
        pytest.param(mapped(lambda m: [*m[:-1], replace(m[-1], size=m[-1].size + 0x1000)]), id="too much RAM"),
        pytest.param(replace(GOOD, backed=GOOD.backed[1:]), id="low RAM is not backed"),
        pytest.param(replace(GOOD, backed=GOOD.backed[:1] * 2), id="blocks overlap"),
        pytest.param(replace(GOOD, backed=((0, 0xFC009001), *GOOD.backed[1:])), id="a block of parts of pages"),
        pytest.param(replace(GOOD, start_info=replace(GOOD.start_info, paddr=0x102008)), id="EBX not page aligned"),
        pytest.param(replace(GOOD, start_info=replace(GOOD.start_info, paddr=0)), id="EBX 0"),
        pytest.param(replace(GOOD, start_info=replace(GOOD.start_info, paddr=1 << 32)), id="EBX beyond 32 bits"),
    ],
)
def test_a_wrong_plan_is_refused_as_a_defect_of_ours(bad: Plan) -> None:
    with pytest.raises(PvhError, match="a defect of pvh"):
        prove(bad)
