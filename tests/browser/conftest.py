"""Chromium without a window, and what it measures of pages."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Chromium tries to reach its maker's hosts at every start unless told not to.
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--virtual-time-budget=5000",
)  # fmt: skip

Measure = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the browser; without one the test is skipped, but never in CI."""
    found = shutil.which("chromium")
    if not found:
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say("no chromium: apt-get install chromium")
    return found


@pytest.fixture
def measured(chromium: str, tmp_path: Path) -> Measure:
    """Return what shows a page in a frame of each width, in light or dark, and gives what a script measures of each."""

    def measure(inner: str, script: str, widths: tuple[int, ...], scheme: str = "light") -> list[dict[str, Any]]:
        style = (
            '<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
            '<body style="margin:0">'
        )
        source = html.escape(inner if inner.startswith("<!doctype") else style + inner)
        frames = "".join(
            f'<iframe style="border:0;width:{width}px;height:20000px" srcdoc="{source}"></iframe>' for width in widths
        )
        code = Path(__file__).with_name(script).read_text(encoding="utf-8")
        page = tmp_path / f"{scheme}.html"
        page.write_text(f"{style}{frames}<script>{code}</script>", encoding="utf-8")
        flags = [*FLAGS, f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"]
        command = [chromium, *flags, f"--user-data-dir={tmp_path / scheme}", "--dump-dom", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        result = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
        assert result, done.stderr
        found: list[dict[str, Any]] = json.loads(html.unescape(result[1]))
        return found

    return measure
