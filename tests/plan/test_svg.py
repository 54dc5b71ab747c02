"""The picture as a document; how it looks is judged in a browser (tests/browser/test_svg.py)."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree as ET

from plan.example import PICTURE, example
from plan.kernels import MIB, kernel
from pvh.plan.options import BootOptions
from pvh.plan.planner import plan
from pvh.plan.record import Plan
from pvh.plan.svg import render_svg

SVG = "{http://www.w3.org/2000/svg}"


def texts(made: Plan, kind: str) -> list[str]:
    root = ET.fromstring(render_svg(made))
    return [element.text or "" for element in root.iter(f"{SVG}text") if element.get("class") == kind]


def test_the_committed_example_is_what_the_tool_draws() -> None:
    assert PICTURE.read_text(encoding="utf-8") == render_svg(example()), "python -m plan.example writes it anew"


def test_every_range_is_named_at_its_address() -> None:
    made = example()
    assert [name for name in texts(made, "name") if name] == [r.name for r in made.ranges]
    assert {f"{r.start:#x}" for r in made.ranges} <= set(texts(made, "address"))


def test_every_reason_is_there_in_full() -> None:
    made = example()
    assert " ".join(texts(made, "why")) == " ".join(r.reason for r in made.ranges)


def test_the_picture_refers_to_nothing_outside_itself() -> None:
    document = render_svg(example())
    assert set(re.findall(r"https?://[^\"' ]+", document)) == {"http://www.w3.org/2000/svg"}
    assert set(re.findall(r"url\(([^)]*)\)", document)) == {"#pvh-hatch"}
    assert "<script" not in document
    assert "@import" not in document


def test_larger_regions_are_taller_and_the_smallest_is_still_visible() -> None:
    root = ET.fromstring(render_svg(example()))
    heights = {}
    for bar in root.iter(f"{SVG}rect"):
        title = bar.find(f"{SVG}title")
        if title is not None and title.text:
            heights[title.text.split(":")[0]] = float(bar.get("height", "0"))
    assert heights["modlist"] >= 30
    assert heights["segment 0 (rwx)" if "segment 0 (rwx)" in heights else "segment 0 (rx)"] > heights["segment 2 (rw)"]
    assert heights["segment 2 (rw)"] > heights["modlist"]


def test_a_hostile_file_name_stays_text() -> None:
    made = plan(kernel((MIB, 0x1000), path='/x/<script>&"\x01\udc80' + "y" * 100), BootOptions())
    root = ET.fromstring(render_svg(made))
    assert not list(root.iter(f"{SVG}script"))
    shown = texts(made, "soft")[0]
    assert shown.startswith('<script>&"\ufffd\ufffdyyy')
    assert shown.endswith("…")


def test_a_long_name_is_shortened_to_its_column() -> None:
    made = example()
    ranges = tuple(replace(r, name=r.name + " of a very long name") for r in made.ranges)
    assert all(name.endswith("…") for name in texts(replace(made, ranges=ranges), "name"))
