"""The whole set through `pvh check`: each wrong kernel is found, at its instruction; its twin is not.

tests/conformance/test_monitor_wrong.py shows what the monitor alone sees of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conformance.kernels import Case, cases
from conformance.oddities import ODD
from conformance.schema import errors
from elfwriter import Elf
from pvh.cli import main
from pvh.conformance.clauses import of_kernel
from pvh.conformance.profiles import profiles
from pvh.conformance.report import VIOLATED
from pvh.kernel.read import read_kernel
from pvh.plan.options import BootOptions

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs" / "check.schema.json").read_text(encoding="utf-8"))

# What it takes for a clause to matter.
WORDS = {
    "modules_count": ("--module", str(ROOT / "README.md")),
    "modules_cmdline_absent": ("--module", str(ROOT / "README.md")),
    "cmdline_long": ("--cmdline", "some words"),
}
# What a kernel breaks beside what it is there for, as it cannot do the one without the other.
ALSO = {
    "entry_mode": {"file.entry-code"},  # the lint sees that it is 64-bit code, too
    "gdt__restored": {"segments.selectors"},  # selector 0 could be loaded without a GDT
    "memory_legacy": {"start_info.null"},  # BIOS data lies in page 0
    "memmap_v0_absent": {"memmap.empty"},  # memmap_paddr is 0 then
    "memmap_holes": {"memmap.types"},  # takes all for RAM, whatever it is
    "memmap_count": {"memory.poison", "memory.placement"},  # finds its 0 in whatever lies behind the map
}

WRONG = [case for case in cases() if case.culprit]
RIGHT = [case for case in cases() if not case.culprit]
GRADES = {wanted for _, wanted in ODD}


def checked(capsys: pytest.CaptureFixture[str], path: Path, *words: str) -> dict[str, Any]:
    status = main(["check", "--json", "--jobs", "1", *words, str(path)])
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["status"] == status
    assert list(errors(told, SCHEMA, SCHEMA)) == []
    return told


def violated(told: dict[str, Any]) -> dict[str, Any]:
    return {clause["id"]: clause for clause in told["clauses"] if clause["verdict"] == "violated"}


def _seen_in(clause: dict[str, Any]) -> str:
    """Return the profile, if any, in whose boot the culprit was found."""
    named = [(f["parting"] or f)["at"] for f in clause["findings"]]
    return str(clause["findings"][named.index(clause["culprit"])]["profile"])


def _shifts(path: Path) -> dict[str, int]:
    """Return by how much a profile moves the image."""
    found = profiles(read_kernel(str(path)), BootOptions())
    return {one.name: sum(dict(d.variation).get("shift", 0) for d in one.deviations) for one in found}


def test_every_clause_that_a_kernel_can_break_has_a_wrong_kernel() -> None:
    without = {clause.id for clause in of_kernel()} - {case.clause for case in WRONG} - {clause for clause, _ in GRADES}
    assert without == set()
    assert {case.clause for case in RIGHT} == {case.clause for case in WRONG}


@pytest.mark.slow
@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.name)
def test_a_wrong_kernel_is_found_at_its_instruction(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, case: Case
) -> None:
    path = case.write(tmp_path)
    told = checked(capsys, path, *WORDS.get(case.name, ()))
    broken = violated(told)
    assert set(broken) == {case.clause} | ALSO.get(case.name, set())
    assert told["status"] == VIOLATED
    at: dict[str, Any] = broken[case.clause]["culprit"]
    moved = _shifts(path).get(_seen_in(broken[case.clause]), 0)  # a profile moves the kernel that says it can be moved
    assert at["address"] - moved == case.culprit
    assert at["symbol"].endswith(f"_{case.name}+0x0")  # a kernel that begins with its fault has two symbols there
    assert at["bytes"]
    assert at["disassembly"]


@pytest.mark.slow
@pytest.mark.parametrize("case", RIGHT, ids=lambda case: case.name)
def test_its_twin_has_no_finding(capsys: pytest.CaptureFixture[str], tmp_path: Path, case: Case) -> None:
    told = checked(capsys, case.write(tmp_path), *WORDS.get(case.name, ()))
    assert violated(told) == {}
    assert [f for clause in told["clauses"] for f in clause["findings"] if f["grade"] == "violation"] == []
    assert told["booted"]
    assert all(one["passed"] for one in told["profiles"])


@pytest.mark.slow
@pytest.mark.parametrize(("made", "wanted"), ODD)
def test_an_odd_file_is_found(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, made: Elf, wanted: tuple[str, str]
) -> None:
    path = tmp_path / "odd.elf"
    path.write_bytes(made.build())
    found = {
        (clause["id"], finding["grade"])
        for clause in checked(capsys, path, "--profile", "kind", "--timeout", "0.5")["clauses"]
        for finding in clause["findings"]
        if finding["origin"] == "file"
    }
    assert wanted in found
