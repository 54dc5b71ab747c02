"""Documentation that is run: a page's files are written, its commands typed, what they print compared.

A fence with title="NAME" is a file. A fence of `console` is a shell's session: `$ ` begins a command, `> ` a further
line of it, the rest is what it prints (both streams); a line of `...` stands for any lines, `...` in a line for any
text. Commands of a page share a folder and run in order; `$ echo $?` shows the status of the one before.

A fence of `sh` is commands alone, a line each: what they print is not compared, but each has to do its work. A fence of
`python` is a program. Before a fence that nothing runs stands a comment that says why: <!-- not run: ... -->.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(
    r"(?:^<!-- not run: (?P<why>[^\n]+) -->\n\n?)?"
    r"^```(?P<language>\w+)(?: title=\"(?P<name>[^\"]+)\")?\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fence: name is that of the file it is, why the reason not to run it; "" where there is none."""

    language: str
    name: str
    body: str
    why: str


@dataclass(frozen=True)
class Step:
    """One command and what it shall print."""

    command: str
    wanted: tuple[str, ...]


def blocks(text: str) -> Iterator[Block]:
    """Give each fence of a page."""
    for found in _FENCE.finditer(text):
        yield Block(found["language"], found["name"] or "", found["body"], found["why"] or "")


def bodies(text: str, language: str) -> list[str]:
    """Return what is to be run of a page in one language, files apart."""
    return [block.body for block in blocks(text) if (block.language, block.name, block.why) == (language, "", "")]


def files(text: str) -> Iterator[tuple[str, str]]:
    """Give each file of a page, by name."""
    for block in blocks(text):
        if block.name:
            yield block.name, block.body


def steps(text: str) -> Iterator[Step]:
    """Give each command of a page's sessions."""
    for body in bodies(text, "console"):
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


def lines(text: str) -> Iterator[str]:
    """Give each command of a page's `sh` fences, comments apart."""
    for body in bodies(text, "sh"):
        for line in body.splitlines():
            if command := re.sub(r"(^|\s+)#.*", "", line):
                yield command


def matches(wanted: tuple[str, ...], got: tuple[str, ...]) -> bool:
    """Tell whether lines are those that were wanted."""
    if not wanted:
        return not got
    if wanted[0].strip() == "...":
        return any(matches(wanted[1:], got[skip:]) for skip in range(len(got) + 1))
    pattern = ".*".join(map(re.escape, wanted[0].rstrip().split("...")))
    return bool(got) and re.fullmatch(pattern, got[0].rstrip()) is not None and matches(wanted[1:], got[1:])


def write(text: str, folder: Path) -> None:
    """Write a page's files into a folder."""
    for name, body in files(text):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body, encoding="utf-8")


def typed(command: str, folder: Path, status: int = 0) -> tuple[int, str]:
    """Type a command in a folder, after one that ended with a status; return its own, and what it printed."""
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": paths, "COLUMNS": "100", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        ["bash", "-c", f"(exit {status})\n{command}"], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def play(text: str, folder: Path) -> None:
    """Do what a page says in a folder; AssertionError where something else comes of it."""
    write(text, folder)
    status = 0
    for step in steps(text):
        status, said = typed(step.command, folder, status)
        got = tuple(said.replace("\r", "").rstrip("\n").splitlines())
        assert matches(step.wanted, got), f"$ {step.command}\n{said}\n--- wanted:\n" + "\n".join(step.wanted)
