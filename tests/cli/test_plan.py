"""`pvh plan` as people and scripts call it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from pvh.cli import main

HELLO = Path(__file__).resolve().parent.parent / "guests" / "hello.elf"


def test_the_table_is_printed_in_the_terminals_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "132")
    assert main(["plan", str(HELLO)]) == 0
    out = capsys.readouterr().out
    assert "start_info" in out
    assert "CONSOLE page" in out
    assert max(map(len, out.splitlines())) <= 132


def test_json_follows_the_options(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("initrd", "other"):
        (tmp_path / name).write_bytes(name.encode())
    guest = ["--memory", "5G", "--vcpus", "3", "--cmdline", "quiet", "--abi", "v0", "--platform", "bare"]
    modules = ["--initrd", str(tmp_path / "initrd"), "--module", f"{tmp_path / 'other'},a,b"]
    assert main(["plan", str(HELLO), "--json", *guest, *modules]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["ram"] == 5 << 30
    assert [m["path"] for m in plan["start_info"]["modules"]] == [str(tmp_path / "initrd"), str(tmp_path / "other")]
    assert plan["options"]["modules"][1]["cmdline"] == "a,b"
    assert plan["start_info"]["memmap_paddr"] == 0
    assert not [r for r in plan["ranges"] if r["kind"] == "special"]


def test_svg_is_written_to_a_file_or_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "plan.svg"
    assert main(["plan", str(HELLO), "--cmdline", "x" * 3000, "--svg", str(picture)]) == 0
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "warning: the command line has 3000 bytes" in streams.err
    assert ET.parse(picture).getroot().tag.endswith("svg")
    assert main(["plan", str(HELLO), "--cmdline", "x" * 3000, "--svg", "-"]) == 0
    assert capsys.readouterr().out == picture.read_text(encoding="utf-8")


def test_a_picture_that_cannot_be_written_is_wrong_usage(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["plan", str(HELLO), "--svg", "-", "--json"]) == 2
    assert main(["plan", str(HELLO), "--svg", str(tmp_path / "none" / "plan.svg")]) == 2
    assert "cannot write it: no such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        ([str(HELLO), "--memory", "1M"], 20, "--memory 2M"),
        ([str(HELLO), "--memory", "4097"], 2, "multiple of 4096"),
        ([str(HELLO), "--vcpus", "129"], 2, "1 to 128"),
        ([str(HELLO), "--initrd", "/nonexistent"], 2, "/nonexistent: cannot read it"),
        (["/nonexistent"], 2, "/nonexistent: cannot read it"),
        ([__file__], 20, ""),
    ],
)
def test_refusals_are_one_sentence_with_the_right_status(
    argv: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *argv]) == status
    streams = capsys.readouterr()
    assert streams.out == ""
    assert said in streams.err
    assert streams.err.count("\n") == 1


def test_one_run_gives_json_and_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(HELLO), "--json", "--svg", str(tmp_path / "memory.svg")]) == 0
    assert json.loads(capsys.readouterr().out)["ram"] == 512 << 20
    assert (tmp_path / "memory.svg").read_text().startswith("<svg")


def test_debians_kernel_is_planned_as_xen_places_it(
    specimen: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The pages of facts/oracle.md: start_info right behind the kernel, its end page aligned."""
    assert main(["plan", str(specimen("vmlinuz-cloud-6.1")), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["kernel"]["start"] == 0x1000000
    assert plan["start_info"]["paddr"] == plan["kernel"]["end"] == 0x3E00000
    assert plan["entry"] == 0x1000850
