"""Documentation that is run: a page's files are written, its commands typed, what they print compared.

A fence with title="NAME" is a file. A fence of `console` is a shell's session: `$ ` begins a command, `> ` a further
line of it, the rest is what it prints (both streams); a line of `...` stands for any lines, `...` in a line for any
text. Commands of a page share a folder and run in order; `$ echo $?` shows the status of the one before.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Step:
    """One command and what it shall print."""

    command: str
    wanted: tuple[str, ...]


def files(text: str) -> Iterator[tuple[str, str]]:
    """Give each file of a page, by name."""
    for _, name, body in _FENCE.findall(text):
        if name:
            yield name, body


def steps(text: str) -> Iterator[Step]:
    """Give each command of a page."""
    for language, name, body in _FENCE.findall(text):
        if language != "console" or name:
            continue
        lines = body.splitlines()
        while lines:
            first = lines.pop(0)
            assert first.startswith("$ "), f"no command: {first}"
            command = first[2:]
            while lines and lines[0].startswith("> "):
                command += "\n" + lines.pop(0)[2:]
            wanted: list[str] = []
            while lines and not lines[0].startswith("$ "):
                wanted.append(lines.pop(0))
            yield Step(command, tuple(wanted))


def matches(wanted: tuple[str, ...], got: tuple[str, ...]) -> bool:
    """Tell whether lines are those that were wanted."""
    if not wanted:
        return not got
    if wanted[0].strip() == "...":
        return any(matches(wanted[1:], got[skip:]) for skip in range(len(got) + 1))
    pattern = ".*".join(map(re.escape, wanted[0].rstrip().split("...")))
    return bool(got) and re.fullmatch(pattern, got[0].rstrip()) is not None and matches(wanted[1:], got[1:])


def play(text: str, folder: Path) -> None:
    """Do what a page says in a folder; AssertionError where something else comes of it."""
    for name, body in files(text):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body, encoding="utf-8")
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": paths, "COLUMNS": "100", "LC_ALL": "C.UTF-8"}
    status = 0
    for step in steps(text):
        script = f"(exit {status})\n{step.command}"
        done = subprocess.run(
            ["bash", "-c", script], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=300, check=False,
        )  # fmt: skip
        status = done.returncode
        got = tuple(done.stdout.replace("\r", "").rstrip("\n").splitlines())
        assert matches(step.wanted, got), f"$ {step.command}\n{done.stdout}\n--- wanted:\n" + "\n".join(step.wanted)
