"""The trace: a JSON line for every exit, on disk before the guest goes on."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from pvh.engines.exits import Hypercall, PortOut, Shutdown
from pvh.errors import UsageError
from pvh.trace import Trace


def test_a_line_holds_the_exits_fields_and_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "t"
    trace = Trace(str(path), iter(range(10**9, 2 * 10**9, 1_234_567)).__next__)
    trace(1, PortOut(0xE9, 1, 65), None)
    trace(0, Hypercall(17, (6, 2**64 - 1, 0, 0, 0), 64, 0), 2**64 - 38)
    trace(0, Hypercall(99, (0, 0, 0, 0, 0), 32, 3), 0)
    trace(0, Shutdown("x"), None)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    times = [line.pop("t") for line in lines]
    assert times == [0.001234, 0.002469, 0.003703, 0.004938], "seconds since it was made, to the microsecond"
    assert lines[0] == {"vcpu": 1, "exit": "PortOut", "port": 0xE9, "size": 1, "value": 65}
    assert lines[1] == {
        "vcpu": 0,
        "exit": "Hypercall",
        "number": 17,
        "args": [6, 2**64 - 1, 0, 0, 0],
        "bits": 64,
        "cpl": 0,
        "name": "xen_version",
        "answer": 2**64 - 38,
    }
    assert lines[2]["name"] == "unknown"
    assert lines[3] == {"vcpu": 0, "exit": "Shutdown", "detail": "x"}


def test_each_line_is_written_at_once(tmp_path: Path) -> None:
    trace = Trace(str(tmp_path / "t"), time.monotonic_ns)
    for count in range(1, 4):
        trace(0, PortOut(1, 1, count), None)
        assert (tmp_path / "t").read_bytes().count(b"\n") == count


def test_a_file_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write the trace: is a directory") as caught:
        Trace(str(tmp_path), time.monotonic_ns)
    assert caught.value.path == str(tmp_path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this host has no /dev/full")
def test_a_full_disk_ends_the_trace_and_not_the_guest() -> None:
    said: list[str] = []
    trace = Trace("/dev/full", time.monotonic_ns, said.append)
    for _ in range(3):
        trace(0, PortOut(1, 1, 1), None)
    assert said == ["/dev/full: the trace ends here: no space left on device"]
    assert trace.cut
    with pytest.warns(RuntimeWarning, match="the trace ends here"):
        Trace("/dev/full", time.monotonic_ns)(0, PortOut(1, 1, 1), None)
