"""What people and tools see of a plan: regions, table, JSON."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plan.kernels import MIB, debian, kernel
from pvh.plan.dump import as_dict
from pvh.plan.options import BootOptions, ModuleSpec
from pvh.plan.planner import plan
from pvh.plan.record import Plan
from pvh.plan.regions import regions
from pvh.plan.text import render_text
from pvh.plan.units import mebibytes_up, printable, size_text


@pytest.fixture
def made(tmp_path: Path) -> Plan:
    initrd = tmp_path / "initrd.img"
    with initrd.open("wb") as file:
        file.truncate(24 * MIB + 777)
    modules = (ModuleSpec(str(initrd), "a=b"),)
    return plan(debian(), BootOptions(memory=8192 * MIB, cmdline="console=hvc0 " + "x" * 2048, modules=modules))


def test_regions_leave_out_nothing_but_bytes_of_alignment(made: Plan) -> None:
    rows = regions(made)
    assert rows[0].start == 0
    assert rows[-1].end == (1 << 32) + 8192 * MIB - 0xFC000000
    assert all(0 <= later.start - row.end < 16 for row, later in pairwise(rows))
    assert [r.name for r in made.ranges] == [row.name for row in rows if row.kind not in ("free", "slack", "none")]
    ram = sum(row.size for row in rows if row.kind in ("free", "kernel", "module", "start-info"))
    assert 8192 * MIB - 64 < ram <= 8192 * MIB


def test_regions_end_with_the_local_apic_page_or_higher_on_a_small_bare_guest() -> None:
    rows = regions(plan(kernel((MIB, 0x1000)), BootOptions(platform="bare")))
    assert (rows[-1].name, rows[-1].end) == ("local APIC", 0xFEE01000)


@pytest.mark.parametrize("width", [20, 80, 100, 140, 400])
def test_the_table_has_every_range_and_keeps_to_the_width_where_it_can(made: Plan, width: int) -> None:
    text = render_text(made, width)
    for r in made.ranges:
        line = next(line for line in text.splitlines() if line.startswith(f"0x{r.start:09x}-0x{r.end - 1:09x} "))
        assert f" {r.kind} " in line
        assert r.name in line
    for line in text.splitlines():
        assert len(line) <= max(width, 80)
        assert line == line.rstrip()
    words = " ".join(text.split())
    assert made.ranges[0].reason in words if width >= 400 or width <= 80 else True
    assert "warning: the command line has 2061 bytes" in words
    assert "entry 0x1000850, EBX (start_info) 0x3e00000" in text
    assert "8 GiB of RAM, 1 vCPU, start_info v1, platform xen" in text
    assert "0x00000000feff8000-0x00000000feffffff      32 KiB  RESERVED" in text


def test_the_json_says_all_of_the_plan(made: Plan) -> None:
    data = json.loads(json.dumps(as_dict(made)))
    assert data["entry"] == 0x1000850
    assert data["kernel"] == {"path": debian().path, "start": 0x1000000, "end": 0x3E00000, "entry": 0x1000850}
    assert data["options"]["memory"] == 8192 * MIB
    assert data["start_info"]["paddr"] == 0x3E00000
    assert data["start_info"]["modules"][0]["size"] == 24 * MIB + 777
    assert [(r["start"], r["end"], r["name"]) for r in data["ranges"]] == [
        (r.start, r.end, r.name) for r in made.ranges
    ]
    contents = {r["name"]: r["content"] for r in data["ranges"]}
    assert contents["segment 1 (rw)"] == {"type": "file", "path": debian().path, "offset": 0x1C00000, "count": 0x61A000}
    assert contents["RSDP"] == {"type": "literal", "count": 36}
    assert contents["memmap"] is None
    assert {e["type_name"] for e in data["memory_map"]} == {"RAM", "NVS", "RESERVED"}
    assert sum(b["size"] for b in data["backed"]) >= data["ram"] == 8192 * MIB
    assert len(data["warnings"]) == 1


def test_a_hostile_file_name_cannot_drive_the_terminal() -> None:
    text = render_text(plan(kernel((MIB, 0x1000), path="a\x1b[2Jb\nc\udc80"), BootOptions()))
    assert text.isprintable() or set(text) - {"\n"} == set(filter(str.isprintable, text))
    assert text.startswith("a\ufffd[2Jb\ufffdc\ufffd\n")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (1, "1 B"), (1023, "1023 B"), (1024, "1 KiB"), (1025, "1.0 KiB"), (512 << 20, "512 MiB"),
        (0xFC000000, "3.9 GiB"), (64 << 30, "64 GiB"), (1 << 40, "1 TiB"), (5 << 50, "5120 TiB"),
    ],
)  # fmt: skip
def test_sizes_have_a_decimal_point_only_when_rounded(size: int, text: str) -> None:
    assert size_text(size) == text


@given(st.integers(0, 1 << 50))
def test_mebibytes_up_is_the_least_that_holds_it(size: int) -> None:
    assert (mebibytes_up(size) - 1) * MIB < size <= mebibytes_up(size) * MIB


@given(st.text())
def test_printable_keeps_the_length_and_only_printable_characters(text: str) -> None:
    assert printable(text).isprintable()
    assert len(printable(text)) == len(text)
