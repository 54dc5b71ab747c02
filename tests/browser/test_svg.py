"""No label of the picture overlaps another or is clipped, at any width, in light and dark: measured in Chromium."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from plan.example import example
from plan.kernels import MIB, kernel, note
from pvh.abi import elfnote
from pvh.plan.options import BootOptions, ModuleSpec
from pvh.plan.planner import plan
from pvh.plan.record import Plan
from pvh.plan.svg import render_svg

pytestmark = pytest.mark.browser

WIDTHS = (300, 360, 899, 900, 1200, 1920)

# Chromium tries to reach its maker's hosts at every start unless told not to.
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--virtual-time-budget=5000",
)  # fmt: skip

MEASURE = Path(__file__).with_name("measure.js")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the browser; without one the test is skipped, but never in CI."""
    found = shutil.which("chromium")
    if not found:
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say("no chromium: apt-get install chromium")
    return found


def wide_plan(folder: Path) -> Plan:
    """Return a plan with the longest addresses, names and reasons, and 40 modules."""
    folder.mkdir()
    modules = [folder / f"{index}{'WM@ Щ漢' * 8}" for index in range(40)]
    for path in modules:
        path.write_bytes(b"x")
    specs = tuple(ModuleSpec(str(path), "command line") for path in modules)
    image = kernel((MIB, 0x5000), notes=(note(elfnote.GUEST_OS, "linux"),), path="/boot/" + "WM" * 50)
    return plan(image, BootOptions(memory=(1 << 40) - 0x4000000, vcpus=128, cmdline="x", modules=specs))


def measured(chromium: str, folder: Path, made: Plan, scheme: str) -> list[dict[str, Any]]:
    """Show the picture in a frame of each width and return what the page measured."""
    style = (
        '<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark"><body style="margin:0">'
    )
    inner = html.escape(style + render_svg(made))
    frames = "".join(f'<iframe style="border:0;width:{w}px;height:20000px" srcdoc="{inner}"></iframe>' for w in WIDTHS)
    page = folder / f"{scheme}.html"
    page.write_text(f"{style}{frames}<script>{MEASURE.read_text()}</script>", encoding="utf-8")
    flags = [*FLAGS, f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"]
    command = [chromium, *flags, f"--user-data-dir={folder / scheme}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    result = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert result, done.stderr
    found: list[dict[str, Any]] = json.loads(html.unescape(result[1]))
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["example", "wide"])
def test_labels_are_legible_at_every_width(chromium: str, tmp_path: Path, which: str, scheme: str) -> None:
    made = example() if which == "example" else wide_plan(tmp_path / "modules")
    found = measured(chromium, tmp_path, made, scheme)
    assert [frame["width"] for frame in found] == list(WIDTHS)
    for frame in found:
        assert frame["wrong"] == [], frame["width"]
        assert not frame["scrolls"], frame["width"]
        assert frame["labels"] > len(made.ranges) * 3, "address, name, size of each"
        assert frame["paper"] == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(18, 22, 29)")
    labels = {frame["width"]: frame["labels"] for frame in found}
    assert labels[1200] == labels[900] >= labels[899] + len(made.ranges), "a wide view shows the reasons as well"
    assert labels[899] == labels[300]


def test_the_measurement_finds_what_is_wrong(chromium: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test of the test: names moved onto the bars and a column to the right are both seen."""
    monkeypatch.setattr("pvh.plan.svg._NAME", 80)
    wrong = measured(chromium, tmp_path, example(), "light")[1]["wrong"]
    assert {"overlap", "on bar"} <= {what for what, *_ in wrong}
    monkeypatch.setattr("pvh.plan.svg._NAME", 340)
    wrong = measured(chromium, tmp_path, example(), "dark")[1]["wrong"]
    assert {what for what, *_ in wrong} == {"clipped"}
