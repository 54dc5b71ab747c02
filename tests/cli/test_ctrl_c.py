"""Ctrl-C at moments when an exception would do no good: while we are imported, in a callback, when all is done."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# Each is run with `interrupt()` and `start()`.
_BEFORE = """
import os, signal, sys
from pvh.__main__ import start
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
sys.argv = ["pvh", "plan", "/nonexistent"]
"""
_WHILE_IMPORTED = """
class Finder:
    def find_spec(name, path, target=None):
        if name == "pvh.errors":
            interrupt()
sys.meta_path.insert(0, Finder)
"""
_SWALLOWED = """
import pvh.cli.plan
def main(argv):
    for _ in range(2):
        try:
            interrupt()
        except KeyboardInterrupt:
            pass
    print("it went on")
    return 0
pvh.cli.plan.main = main
"""
_AT_ONCE = """
import pvh.cli.plan
def main(argv):
    pvh.cli.ctrl_c.end_at_once("farewell ")
    try:
        interrupt()
    finally:
        print("it went on", flush=True)
pvh.cli.plan.main = main
"""
_AFTERWARDS = """
import gc
gc.freeze = interrupt
"""


def run(script: str, before: str = "") -> tuple[int, str, str]:
    """Return the status, the output and the errors of the command, with some changes made to its process."""
    words = [sys.executable, "-c", f"{before}{_BEFORE}{script}sys.exit(start())"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_while_modules_are_imported_it_ends_without_a_word() -> None:
    assert run(_WHILE_IMPORTED) == (-signal.SIGINT, "", "")


def test_a_second_one_is_not_swallowed() -> None:
    assert run(_SWALLOWED) == (130, "", "")


def test_a_command_can_have_the_first_one_end_it() -> None:
    assert run(_AT_ONCE) == (130, "", "farewell pvh: interrupted\n")


def test_when_all_is_done_it_ends_without_a_word() -> None:
    status, out, err = run(_AFTERWARDS)
    assert (status, out) == (-signal.SIGINT, "")
    assert err.startswith("pvh: /nonexistent: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("script", [_WHILE_IMPORTED, _AFTERWARDS])
def test_ignored_from_the_start_it_stays_so(script: str) -> None:
    status, _out, err = run(script, "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)")
    assert (status, err.count("\n")) == (2, 1)
