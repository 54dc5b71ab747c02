"""Ctrl-C and other ends of `pvh check` from outside: at once, with what was found so far, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.relies import written
from pvh.conformance.workers import spread
from pvh.errors import EngineError, UsageError

# mov $50000000, %ecx; 1: dec %ecx; jnz 1b; mov $'!', %al; out %al, $0xe9; a newline; exit status 0
_BUSY = bytes.fromhex("b980f0fa02 49 75fd b021 e6e9 b00a e6e9 b000 e6f4")


def begun(folder: Path, jobs: int) -> tuple[subprocess.Popen[str], str]:
    """Start a check of a kernel that takes its time; return it, and its first lines, when a profile was tried."""
    kernel = written(folder, "busy.elf", _BUSY)
    words = [sys.executable, "-m", "pvh", "check", "--jobs", str(jobs), kernel]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, bufsize=1
    )
    assert process.stdout
    said = process.stdout.readline() + process.stdout.readline()
    assert "profiles; booted when it says" in said
    assert "kind" in said
    return process, said


def children(session: int) -> list[int]:
    """Return the processes of a session that live."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _parent, _group, sid = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:  # it went meanwhile
                continue
            if int(sid) == session and state not in "ZX":
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize(("jobs", "times"), [(1, 1), (2, 1), (4, 2)])
def test_ctrl_c_ends_it_and_its_workers(tmp_path: Path, jobs: int, times: int) -> None:
    process, _said = begun(tmp_path, jobs)
    with process:
        for _ in range(times):
            os.killpg(process.pid, signal.SIGINT)
        _out, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (130, "pvh: interrupted\n")
    assert children(process.pid) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_it_however_it_ends(tmp_path: Path, number: signal.Signals) -> None:
    process, _said = begun(tmp_path, 2)
    with process:
        process.send_signal(number)
        _out, err = process.communicate(timeout=10)  # not before every worker gave its end of the pipes back
    assert (process.returncode, err) == (-number, "")
    assert children(process.pid) == []


def test_no_reader_is_no_failure(tmp_path: Path) -> None:
    process, _said = begun(tmp_path, 2)
    with process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=20) == 141
    assert children(process.pid) == []


def no_child() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


class TestWorkers:
    @pytest.mark.parametrize("jobs", [1, 3, 40])
    def test_answers_come_in_order(self, jobs: int) -> None:
        assert list(spread(20, jobs, lambda: lambda index: index * index)) == [index * index for index in range(20)]
        assert no_child()

    def test_what_a_piece_raises_is_raised_in_its_place(self) -> None:
        def fail(index: int) -> int:
            if index == 2:
                raise UsageError("no such thing", path="file")
            return index

        answers = spread(4, 2, lambda: fail)
        assert [next(answers), next(answers)] == [0, 1]
        with pytest.raises(UsageError, match="file: no such thing"):
            next(answers)
        assert no_child()

    def test_a_dead_worker_is_said(self) -> None:
        with pytest.raises(EngineError, match="a worker process died"):
            list(spread(1, 2, lambda: lambda _: os.kill(os.getpid(), signal.SIGKILL)))

    def test_who_wants_no_more_answers_leaves_none_behind(self) -> None:
        answers = spread(2, 2, lambda: lambda _index: signal.pause())
        answers.close()  # type: ignore[attr-defined]
        assert no_child()
