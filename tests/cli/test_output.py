"""Where output cannot go, a command says so, and ends in order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HELLO = str(Path(__file__).parents[1] / "guests" / "hello.elf")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this host has no /dev/full")
@pytest.mark.parametrize(
    "words", [["--help"], ["run", "--help"], ["--version"], ["inspect", HELLO], ["plan", HELLO, "--json"]]
)
def test_a_full_disk_is_the_hosts_failure(words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "pvh", *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    assert done.returncode == 14
    assert done.stderr == "pvh: the host failed: [Errno 28] No space left on device\n"
