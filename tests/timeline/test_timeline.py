"""What a run's timeline keeps, and how it is written."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from pvh.cli import main
from pvh.timeline.chrome import render_chrome
from pvh.timeline.html import render_page
from pvh.timeline.record import KINDS, Timeline
from timeline.example import EXITS, example

GUESTS = Path(__file__).parents[1] / "guests"


def test_exits_are_named_by_kind_and_in_few_words() -> None:
    timeline = example(1)
    assert [(KINDS[moment.kind], moment.what) for moment in timeline.moments] == [
        ("hypercall", "vcpu_op"),
        ("port", "out 0xe9"),
        ("port", "in 0x3f8"),
        ("MMIO", "read 0xfee00000"),
        ("MMIO", "write 0xfee00000"),
        ("MSR", "rdmsr 0x10"),
        ("MSR", "wrmsr 0x40000000"),
        ("halt", "hlt"),
        ("hypercall", "hypercall 99"),
        ("end", "shutdown"),
    ]
    assert [moment.at for moment in timeline.moments[:3]] == [1_000_000, 2_000_000, 3_000_000]


def test_a_line_has_the_time_of_its_first_byte() -> None:
    clock = iter((0, 5, 7, 9, 11))
    timeline = Timeline(lambda: next(clock))
    for data in (b"a\nb", b"c", b"\xff\r\n", b"last"):
        timeline.console(data)
    timeline.flush()
    assert [(line.at, line.text) for line in timeline.lines] == [(5, "a"), (5, "bc\ufffd"), (11, "last")]


def test_what_a_guest_repeats_for_ever_takes_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pvh.timeline.record._MOST", 10)
    monkeypatch.setattr("pvh.timeline.record._KEPT_LINES", 3)
    timeline = example()
    timeline.console(b"x" * 1_000_000)
    assert (len(timeline.moments), len(timeline.lines)) == (10, 3)
    assert len(timeline._part) <= 400
    assert timeline.dropped == 50 * len(EXITS) + 1 - 10
    assert str(timeline.dropped) in render_page(timeline, "x", "")


def test_chrome_gets_events_in_microseconds_and_a_thread_for_each_vcpu() -> None:
    timeline = example(3)
    events = json.loads(render_chrome(timeline, "a run"))["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert names == {0: "vCPU 0", 1: "vCPU 1", 2: "vCPU 2", 1000: "console"}
    halts = [event for event in events if event["ph"] == "X"]
    assert [(event["tid"], event["ts"], event["dur"]) for event in halts] == [
        (0, 8000.0, 1000.0), (1, 19000.0, 1000.0), (2, 30000.0, 1000.0),
    ]  # fmt: skip
    instants = [event for event in events if event["ph"] == "i" and event["tid"] < 1000]
    assert len(instants) == 3 * (len(EXITS) - 1) + 1
    assert all(event["s"] == "t" and event["ts"] >= 0 for event in events if event["ph"] == "i")


def test_the_page_is_well_formed_and_says_what_was_said() -> None:
    text = render_page(example(), "a <kernel>", "it & ended")
    body = text[text.index("<main>") : text.index("</body>")]
    tree = ET.fromstring(body.replace("&nbsp;", " "))
    assert "line 3 <b>&amp; long long long" in "".join(tree.itertext())
    assert len(tree.findall(".//svg")) == 4
    assert "a <kernel>" in "".join(tree.itertext())


def test_an_empty_run_has_a_page() -> None:
    assert "<main>" in render_page(Timeline(), "nothing", "")


@pytest.mark.parametrize("name", ["t.html", "t.json"])
def test_run_writes_it(name: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    path = tmp_path / name
    words = ["run", "--engine", "emulator", "--timeline", str(path), "--trace", str(tmp_path / "trace")]
    assert main([*words, str(GUESTS / "hello.elf")]) == 0
    assert capfdbinary.readouterr().out == b"Hello from PVH\n"
    text = path.read_text(encoding="utf-8")
    assert "Hello from PVH" in text
    assert "out 0xe9" in text
    assert (tmp_path / "trace").read_text().count("PortOut") == 16, "a trace goes with it"
    if name == "t.html":
        assert "poweroff" in text or "exit-port" in text


def test_another_name_is_refused_before_the_guest_runs(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["run", "--timeline", str(tmp_path / "t.png"), str(GUESTS / "hello.elf")]) == 2
    assert main(["run", "--timeline", str(tmp_path / "no" / "t.html"), str(GUESTS / "hello.elf")]) == 2
    out, err = capfdbinary.readouterr()
    assert out == b""
    assert b"a timeline is .html for a browser" in err
