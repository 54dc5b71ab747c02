"""What tells that a kernel booted that does not say so: how it ends; and that nothing does, of one that is silent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conformance.relies import ENTRY, written
from conformance.schema import errors
from conformance.test_check import SCHEMA, checked, violated
from pvh.cli import main
from pvh.conformance.report import VIOLATED, as_dict
from pvh.conformance.text import render
from pvh.engines.engine import Engine
from pvh.engines.select import choose
from pvh.plan.options import BootOptions

_A = "b041 e6e9 b00a e6e9"  # mov $'A', %al; out %al, $0xe9; mov $'\n', %al; out %al, $0xe9
_HALT = "fa f4 ebfd"  # cli; 1: hlt; jmp 1b
_OFF = f"b81d000000 bb02000000 b9{(ENTRY + 0x1000).to_bytes(4, 'little').hex()} 0f01d9"  # sched_op(shutdown, poweroff)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return choose("emulator", print)


def kernel(folder: Path, code: str) -> str:
    return written(folder, "ends.elf", bytes.fromhex(code))


def test_a_kernel_that_panics_with_a_version_it_does_not_know_has_not_booted(engine: Engine, tmp_path: Path) -> None:
    picky = kernel(tmp_path, f"{_A} 837b0401 7512 {_OFF} {_HALT}")  # cmpl $1, 4(%ebx); jne to the halt
    report = checked(engine, picky)
    assert report.booted
    assert violated(report) == {"version.future", "memmap.v0-absent"}
    assert [one.profile.name for one in report.attempts if not one.passed] == ["version-0", "version-9"]
    assert [one.boot.missing for one in report.attempts if not one.passed] == ["it ends by poweroff"] * 2
    told = " ".join(render(report, 100).split())
    assert "it does not get to where it ends by poweroff: vCPU 0 halted with interrupts off" in told


def test_one_that_always_halts_after_its_line_ends_that_way(engine: Engine, tmp_path: Path) -> None:
    report = checked(engine, kernel(tmp_path, f"{_A} {_HALT}"))
    assert [str(milestone) for milestone in report.way] == ["it says /A/", "it halts for good"]
    assert report.status == 0


@pytest.mark.parametrize(
    ("code", "end", "status"),
    [(_OFF, "poweroff", 0), (_OFF, "halt", VIOLATED), (_HALT, "halt", 0), (_HALT, "poweroff", VIOLATED)],
    ids=["asks", "asks-not-halt", "halts", "halts-not-asks"],
)
def test_a_power_off_is_asked_for_and_a_halt_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str, end: str, status: int
) -> None:
    words = ["--until", f"ends:{end}", "--profile", "vcpus-2", kernel(tmp_path, code)]
    assert main(["check", *words]) == status, capsys.readouterr().out


@pytest.mark.parametrize("end", ["0f0b", "b81d000000 bb02000000 b9 04102000 c60103 0f01d9"], ids=["ud2", "crash"])
def test_a_kernel_that_speaks_and_comes_to_a_bad_end_does_not_boot(engine: Engine, tmp_path: Path, end: str) -> None:
    report = checked(engine, kernel(tmp_path, f"{_A} {end} {_HALT}"))
    assert (report.booted, report.status, len(report.attempts)) == (False, VIOLATED, 1)


@pytest.mark.parametrize("code", ["f4 ebfd", "ebfe", "fb f4 ebfd"], ids=["halts", "spins", "idles"])
def test_of_a_silent_kernel_nothing_can_be_told(engine: Engine, tmp_path: Path, code: str) -> None:
    silent = kernel(tmp_path, f"bc00182000 {code}")
    report = checked(engine, silent, BootOptions(platform="xen"))
    assert report.booted is None
    assert report.status == VIOLATED, "it is not green"
    assert "Give --until" in render(report, 100)
    assert all(one.passed for one in report.attempts)
    assert all(one.boot.blocks is not None and one.boot.blocks < 5_200_000 for one in report.attempts[1:])
    told = json.loads(json.dumps(as_dict(report)))
    assert told["booted"] is None
    assert list(errors(told, SCHEMA, SCHEMA)) == []


def test_a_silent_kernel_that_breaks_is_caught_all_the_same(engine: Engine, tmp_path: Path) -> None:
    report = checked(engine, kernel(tmp_path, "85c0 7402 0f0b ebfe"))
    assert violated(report) >= {"entry.eax"}
    assert {one.profile.name for one in report.attempts if not one.passed} == {"ones", "random", "nasty"}
