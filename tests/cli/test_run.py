"""`pvh run` as people and scripts call it: console on standard output, the ending on standard error and as status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HELLO = str(Path(__file__).resolve().parent.parent / "guests" / "hello.elf")
PVH = [sys.executable, "-m", "pvh", "run", "--engine", "emulator"]


def run(*words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PVH, *words], capture_output=True, text=True, timeout=timeout, check=False)


def test_hello_says_so_and_leaves_with_its_status() -> None:
    done = run(HELLO)
    assert (done.returncode, done.stdout) == (0, "Hello from PVH\n")
    assert done.stderr.splitlines()[-1].startswith("pvh: exit-port after ")


def test_the_trace_is_json_lines_that_end_with_the_exit(tmp_path: Path) -> None:
    done = run("--trace", str(tmp_path / "t"), HELLO)
    lines = [json.loads(line) for line in (tmp_path / "t").read_text().splitlines()]
    assert done.returncode == 0
    assert bytes(line["value"] for line in lines if line.get("port") == 0xE9).decode() == done.stdout
    assert lines[-1]["port"] == 0xF4


def test_a_trace_that_cannot_be_written_is_said_before_anything_runs(tmp_path: Path) -> None:
    done = run("--trace", str(tmp_path / "no" / "t"), HELLO)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot write the trace: no such file" in done.stderr


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "1e300", "soon"])
def test_a_timeout_is_a_span_of_time(seconds: str) -> None:
    done = run("--timeout", seconds, HELLO)
    assert done.returncode == 2
    assert "no number of seconds" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_timeout_of_years_is_fine() -> None:
    assert run("--timeout", "1e9", HELLO).returncode == 0


def test_a_console_that_cannot_be_written_ends_the_run() -> None:
    """`pvh run kernel | true`: the guest would otherwise write to nobody, for ever."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        done = subprocess.run([*PVH, HELLO], stdout=gone, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert "whoever read the console went away" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_orderly(number: signal.Signals, tmp_path: Path) -> None:
    """The guest waits in its console, a pipe that nobody reads; its ending is told none the less."""
    fifo = str(tmp_path / "trace")
    os.mkfifo(fifo)
    with subprocess.Popen([*PVH, "--trace", fifo, HELLO], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        with open(fifo, "rb", buffering=0) as trace:
            assert trace.read(1)  # it runs
            process.send_signal(number)
            while trace.read(65536):
                pass
        _, told = process.communicate(timeout=60)
    # A guest this short may have ended itself before the signal came.
    assert process.returncode in (0, 130)
    assert b"Traceback" not in told
    assert (number.name.encode() in told) == (process.returncode == 130)
