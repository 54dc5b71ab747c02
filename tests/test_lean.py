"""`pvh run` of a tiny kernel starts fast: it imports the modules listed here and no others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HELLO = str(Path(__file__).parent / "guests" / "hello.elf")

# What a run may take from the standard library, by its users. A module that is not here needs a reason: argparse,
# dataclasses, platform, re and typing took half of a run's time before pvh had ways around them.
ALLOWED = {
    "the package": {"__future__", "gc", "importlib", "types", "warnings"},
    "ctypes, mmap": {"ctypes", "struct", "mmap"},
    "signal": {"signal", "enum", "functools", "collections", "itertools", "keyword", "operator", "reprlib"},
    "threading": {"threading", "heapq"},
    "bisect, contextlib": {"bisect", "contextlib"},
    "kvm": {"errno", "fcntl"},
}
STANDARD = set[str]().union(*ALLOWED.values())

REPORT = """
import sys
before = set(sys.modules)
from pvh.cli import main
status = main(["run", *sys.argv[1:]])
print(status, *sorted(set(sys.modules) - before), sep="\\n", file=sys.stderr)
"""


def loaded(engine: str) -> set[str]:
    words = [sys.executable, "-c", REPORT, "--engine", engine, "--timeout", "60", HELLO]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "Hello from PVH\n", done.stderr
    lines = done.stderr.splitlines()
    begin = lines.index("0")  # the exit status; before it stands what pvh said
    return set(lines[begin + 1 :])


@pytest.mark.parametrize("engine", ["emulator", "kvm"])
def test_only_listed_modules_are_imported(engine: str) -> None:
    if engine == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("no /dev/kvm here")
    tops = {name.partition(".")[0] for name in loaded(engine)}
    outside = {name for name in tops if not name.startswith("_")} - STANDARD - {"pvh"}
    assert outside == set()


def test_one_engine_does_not_load_the_other() -> None:
    assert not [name for name in loaded("emulator") if name.startswith("pvh.engines.kvm")]
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        assert not [name for name in loaded("kvm") if name.startswith("pvh.engines.emulator")]


@pytest.mark.parametrize(
    ("statement", "standard", "ours"),
    [
        ("import pvh", {"__future__", "types"}, {"pvh"}),
        ("from pvh.cli import main; main(['--version'])", {"__future__", "gc", "types"},
         {"pvh", "pvh.cli", "pvh.cli.ctrl_c", "pvh.errors", "pvh.hints"}),
    ],
)  # fmt: skip
def test_the_package_and_its_version_load_next_to_nothing(statement: str, standard: set[str], ours: set[str]) -> None:
    """What a person or a build script waits for most often: neither typing, nor re, nor anything of metadata."""
    report = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    names = set(done.stderr.split())
    assert {name for name in names if name.partition(".")[0] == "pvh"} == ours
    tops = {name.partition(".")[0] for name in names}
    assert {name for name in tops if not name.startswith("_") and name != "pvh"} <= standard


def test_nothing_of_other_commands_is_loaded() -> None:
    others = ("pvh.cli.inspect", "pvh.cli.plan", "pvh.cli.doctor", "pvh.plan.svg", "pvh.plan.text", "pvh.diagnosis")
    assert loaded("emulator").isdisjoint(others)
