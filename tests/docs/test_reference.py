"""The site: every page has its place, and docs/reference.md has every name of the API, as its docstring has it."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from tools.docstrings import markdown

import pvh

ROOT = Path(__file__).resolve().parents[2]
DIRECTIVE = re.compile(
    r"^::: (pvh[\w.]*)\.(\w+)\n    options: \{ heading: pvh\.(\w+), toc_label: (\w+) \}$", re.MULTILINE
)
DOCSTRING = """Do it.

one      the first,
         in two lines
two, ah  the second
Raises nothing  at all.

>>> do(1, 2)
3
"""
MARKDOWN = """Do it.

- `one`: the first,
  in two lines
- `two, ah`: the second

Raises nothing  at all.

```pycon
>>> do(1, 2)
3
```"""


def test_a_docstring_in_markdown() -> None:
    assert markdown(DOCSTRING) == MARKDOWN


def test_prose_stays_prose() -> None:
    prose = "A word  and two spaces are no list of names.\nNor is  this."
    assert markdown(prose) == prose


def test_the_page_has_every_name_once_from_its_home() -> None:
    found = DIRECTIVE.findall((ROOT / "docs" / "reference.md").read_text(encoding="utf-8"))
    assert sorted(name for _, name, *_ in found) == [name for name in pvh.__all__ if not name.startswith("__")]
    for home, name, *labels in found:
        assert getattr(import_module(home), name) is getattr(pvh, name)
        assert labels == [name, name]


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"^ +- ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    docs = ROOT / "docs"
    assert sorted(listed) == sorted(str(page.relative_to(docs)) for page in docs.rglob("*.md"))


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_shows_signatures_and_examples(tmp_path: Path) -> None:
    if find_spec("mkdocs") is None:
        pytest.skip("no mkdocs here: make docs brings it")
    words = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=False, env={"NO_MKDOCS_2_WARNING": "1"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    page = html.unescape(re.sub(r"<[^>]+>", "", (tmp_path / "reference" / "index.html").read_text(encoding="utf-8")))
    for name in pvh.__all__:
        if not name.startswith("__"):
            assert f"pvh.{name}\n" in page, name
    for shown in ("timeout: float | None = 30.0", "memory: int = 512 * MIB", ">>> with pvh.boot("):
        assert shown in page, shown
    assert "hear(" not in page  # the machine's, not a program's
