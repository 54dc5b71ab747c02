"""What every campaign says of itself: when, by what command, of which versions. Without pytest."""

from __future__ import annotations

import gc
import json
import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version


def resident() -> int:
    """Return the bytes of this process in memory."""
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def versions() -> dict[str, str]:
    """Return what is known of the code that runs: inside a nested machine, nothing."""
    found: dict[str, str] = {}
    with suppress(OSError):
        done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
        found["commit"] = done.stdout.strip()
    for name in ("pvh", "unicorn"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def header(script: str, argv: list[str]) -> dict[str, object]:
    """Return the first lines of a report."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": ["python", script, *argv],
        "versions": versions(),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


class Progress:
    """Says on standard error how far a campaign is, every ten seconds."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def tell(self, done: int, wanted: int) -> None:
        """Take note of how much is done."""
        now = time.monotonic()
        if now - self._said >= 10:
            self._said = now
            print(f"{done} of {wanted}", file=sys.stderr, flush=True)


def give(report: dict[str, object], path: str | None) -> None:
    """Print a report as JSON, and write it where it was asked for."""
    text = json.dumps(report, indent=1)
    print(text)
    if path:
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text + "\n")
