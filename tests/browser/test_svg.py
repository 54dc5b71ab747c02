"""No label of the picture overlaps another or is clipped, at any width, in light and dark: measured in Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest

from browser.conftest import Measure
from plan.example import example
from plan.kernels import MIB, kernel, note
from pvh.abi import elfnote
from pvh.plan import svg
from pvh.plan.options import BootOptions, ModuleSpec
from pvh.plan.planner import plan
from pvh.plan.record import Plan
from pvh.plan.svg import render_svg

pytestmark = pytest.mark.browser

WIDTHS = (300, 360, 899, 900, 1200, 1920)


def wide_plan(folder: Path) -> Plan:
    """Return a plan with the longest addresses, names and reasons, and 40 modules."""
    folder.mkdir()
    modules = [folder / f"{index}{'WM@ Щ漢' * 8}" for index in range(40)]
    for path in modules:
        path.write_bytes(b"x")
    specs = tuple(ModuleSpec(str(path), "command line") for path in modules)
    image = kernel((MIB, 0x5000), notes=(note(elfnote.GUEST_OS, "linux"),), path="/boot/" + "WM" * 50)
    return plan(image, BootOptions(memory=(1 << 40) - 0x4000000, vcpus=128, cmdline="x", modules=specs))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["example", "wide"])
def test_labels_are_legible_at_every_width(measured: Measure, tmp_path: Path, which: str, scheme: str) -> None:
    made = example() if which == "example" else wide_plan(tmp_path / "modules")
    found = measured(render_svg(made), "measure.js", WIDTHS, scheme)
    assert [frame["width"] for frame in found] == list(WIDTHS)
    for frame in found:
        assert frame["wrong"] == [], frame["width"]
        assert not frame["scrolls"], frame["width"]
        assert frame["labels"] > len(made.ranges) * 3, "address, name, size of each"
        assert frame["paper"] == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(18, 22, 29)")
    labels = {frame["width"]: frame["labels"] for frame in found}
    assert labels[1200] == labels[900] >= labels[899] + len(made.ranges), "a wide view shows the reasons as well"
    assert labels[899] == labels[300]


def test_the_measurement_finds_what_is_wrong(measured: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test of the test: names moved onto the bars and a column to the right are both seen."""
    monkeypatch.setattr(svg, "_NAME", 80)
    wrong = measured(render_svg(example()), "measure.js", WIDTHS)[1]["wrong"]
    assert {"overlap", "on bar"} <= {what for what, *_ in wrong}
    monkeypatch.setattr(svg, "_NAME", 340)
    wrong = measured(render_svg(example()), "measure.js", WIDTHS, "dark")[1]["wrong"]
    assert {what for what, *_ in wrong} == {"clipped"}
