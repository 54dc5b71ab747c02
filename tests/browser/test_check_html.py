"""The report of pvh check: one file, nothing overlapping or clipped at any width, on paper, in light and in dark."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from browser.conftest import FLAGS, Measure
from pvh.cli import main

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
HELLO = str(ROOT / "tests" / "guests" / "hello.elf")
WIDTHS = (360, 720, 721, 1200)
PAPER = 718  # pixels between the margins of an A4 page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert main(["check", "--html", str(path), "--cmdline", "word " * 60, HELLO]) == 15
    return path.read_text(encoding="utf-8")


def on_paper(page: str) -> str:
    """Return the page as it is printed: what is for print is for all."""
    return page.replace("@media print", "@media all")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overlaps_or_is_clipped(measured: Measure, page: str, scheme: str) -> None:
    found = [*measured(page, "words.js", WIDTHS, scheme), *measured(on_paper(page), "words.js", (PAPER,), scheme)]
    assert [frame["width"] for frame in found] == [*WIDTHS, PAPER]
    for frame in found:
        assert frame["wrong"] == [], frame["width"]
        assert frame["outside"] == []
        assert not frame["scrolls"], frame["width"]
        assert frame["words"] > 250
        assert frame["paper"] == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(18, 22, 29)")


def test_the_measurement_finds_what_is_wrong(measured: Measure, page: str) -> None:
    wide = page.replace("overflow-wrap:anywhere", "white-space:nowrap")
    tight = page.replace("font:15px/1.5 system-ui", "font:15px/.5 system-ui")
    assert "clipped" in {what for what, *_ in measured(wide, "words.js", (360,))[0]["wrong"]}
    assert "overlap" in {what for what, *_ in measured(tight, "words.js", (360,))[0]["wrong"]}


def test_it_is_one_file_with_everything_in_it(page: str) -> None:
    assert re.findall(r'(?:src|href)="[^#][^"]*"|url\([^#][^)]*\)|@import', page) == []
    for part in ("Verdicts", "Profiles", "Guest memory", "The boot in time", "eflags.df"):
        assert part in page


def test_it_is_printed(chromium: str, tmp_path: Path, page: str) -> None:
    source, target = tmp_path / "page.html", tmp_path / "page.pdf"
    source.write_text(page, encoding="utf-8")
    command = [chromium, *FLAGS, f"--user-data-dir={tmp_path / 'print'}", f"--print-to-pdf={target}", source.as_uri()]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    data = target.read_bytes()
    assert data.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", data)) >= 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_picture_of_memory_keeps_its_room_in_the_page(measured: Measure, page: str, scheme: str) -> None:
    for frame in measured(page, "measure.js", (360, 900, 1200), scheme):
        assert frame["wrong"] == [], frame["width"]
        assert not frame["scrolls"]
