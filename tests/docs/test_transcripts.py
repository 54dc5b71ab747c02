"""Every command of the tutorial and the how-to pages does what the page shows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from docs.transcript import matches, play, steps

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "docs" / "tutorial.md", *(ROOT / "docs" / "howto").glob("*.md")])
NEEDS = ("gcc", "as", "ld", "gdb", "qemu-system-x86_64")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_true(page: Path, tmp_path: Path, specimen: Callable[[str], Path]) -> None:
    text = page.read_text(encoding="utf-8")
    typed = " ".join(step.command for step in steps(text))
    absent = [tool for tool in NEEDS if f"{tool} " in typed and shutil.which(tool) is None]
    if absent:
        pytest.skip(f"no {', '.join(absent)} here")
    if "vmlinuz" in typed:
        (tmp_path / "vmlinuz").symlink_to(specimen("vmlinuz-cloud-6.1"))
    play(text, tmp_path)


def test_dots_stand_for_what_may_differ() -> None:
    assert matches(("a", "...", "d ... f"), ("a", "b", "c", "d e f"))
    assert matches(("...",), ())
    assert not matches(("a",), ("a", "b"))
    assert not matches(("a", "b"), ("a",))
    assert not matches(("a...c",), ("a b",))


def test_what_is_not_so_is_found(tmp_path: Path) -> None:
    page = "```console\n$ echo one\none\n$ false\n$ echo $?\n0\n```\n"
    with pytest.raises(AssertionError, match="wanted"):
        play(page, tmp_path)
    play(page.replace("\n0\n", "\n1\n"), tmp_path)
