"""Deliberately wrong kernels, one or more for every clause a kernel can break, and the right twin of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.kernels import Case, cases
from conformance.monitored import monitored, violations
from pvh.build.builder import build
from pvh.conformance.clauses import BY_ID, of_kernel
from pvh.conformance.watching import WATCHED
from pvh.engines.emulator.engine import EmulatorEngine
from pvh.kernel.read import read_kernel
from pvh.machine import Machine
from pvh.outcome import Outcome
from pvh.plan.options import MIB, BootOptions, ModuleSpec
from pvh.plan.planner import plan
from pvh.plan.variation import Variation
from pvh.record import replace

PLAIN = BootOptions(timeout=20.0)
MODULE = (ModuleSpec("README.md"),)

# What it takes for a clause to matter, where an ordinary guest will not do.
GUESTS: dict[str, BootOptions] = {
    "start_info.last-bytes": replace(PLAIN, variation=Variation(scatter=1)),
    "memmap.v0-absent": replace(PLAIN, abi="v0"),
    "memmap.empty": replace(PLAIN, variation=Variation(mapped=False)),
    "cmdline.long": replace(PLAIN, cmdline="word " * 1600),
    "modules.count": replace(PLAIN, modules=MODULE, variation=Variation(scatter=1)),
    "modules.cmdline-absent": replace(PLAIN, modules=MODULE),
    "rsdp.absent": replace(PLAIN, variation=Variation(acpi=False)),
}
# Kernels that use nothing unspecified: they go wrong where the guest is another.
BEHAVING: dict[str, BootOptions] = {
    "memory_amount": replace(PLAIN, memory=256 * MIB),
    "vcpus": replace(PLAIN, vcpus=2),
    "version_future": replace(PLAIN, variation=Variation(version=2, tail=64)),
    "memmap_order": replace(PLAIN, variation=Variation(disorder=2)),
    "memmap_holes": replace(PLAIN, variation=Variation(holes=((256 * MIB, MIB),))),
    "memmap_zero_size": replace(PLAIN, variation=Variation(empties=True)),
    "memmap_types": replace(PLAIN, variation=Variation(foreign=((256 * MIB, MIB, 32),))),
    "cmdline_long": replace(PLAIN, cmdline="word " * 100),
    "reloc": replace(PLAIN, variation=Variation(shift=MIB)),
}
# Everything at once that may be otherwise for whoever keeps to the ABI.
ODD = Variation(
    registers=(("rax", 0x2BADB002), ("rsp", 0xFED00800), ("rbp", 1), ("rdi", 0x1000), ("rflags", 0x244CD5), ("cr2", 7),
               ("ds.selector", 0x18), ("gdtr.base", 0xFFFF0000)),
    poison=11, scatter=3, pieces=5, empties=True, disorder=4,
)  # fmt: skip

WRONG = [case for case in cases() if case.culprit and case.name not in BEHAVING]
RIGHT = [case for case in cases() if not case.culprit]
SLIPPING = [case for case in cases() if case.name in BEHAVING]


def _run(case: Case, folder: Path, options: BootOptions) -> Outcome:
    image = build(plan(read_kernel(str(case.write(folder))), options))
    outcome = Machine(image, EmulatorEngine(), lambda _: None).run()
    image.ram.close()
    return outcome


def test_every_clause_that_a_kernel_can_break_has_a_wrong_kernel_and_a_twin() -> None:
    wanted = {clause.id for clause in of_kernel() if clause.part != "file"}
    assert {case.clause for case in cases() if case.culprit} == wanted
    assert {case.clause for case in RIGHT} == wanted


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.name)
def test_a_wrong_kernel_is_found_at_the_instruction_that_breaks_the_clause(case: Case, tmp_path: Path) -> None:
    findings, _, _ = monitored(case.write(tmp_path), GUESTS.get(case.clause, PLAIN))
    found = [finding for finding in findings if finding.grade == "violation"]
    assert [finding.clause for finding in found] == [case.clause], found
    at = found[0].at
    assert at
    assert at.address == case.culprit
    assert at.symbol.endswith(f"_{case.name}+0x0")  # a kernel that begins with its fault has two symbols there
    assert at.code


@pytest.mark.parametrize("case", RIGHT, ids=lambda case: case.name)
def test_the_right_twin_has_no_finding_in_any_guest(case: Case, tmp_path: Path) -> None:
    odd = replace(PLAIN, cmdline="some words", modules=MODULE, variation=ODD)
    for options in (GUESTS.get(case.clause, PLAIN), odd):
        findings, outcome, _ = monitored(case.write(tmp_path), options)
        assert violations(findings) == []
        assert (outcome.ending, outcome.status) == ("exit-port", 0), outcome.reason


@pytest.mark.parametrize("case", SLIPPING, ids=lambda case: case.name + ("" if case.culprit else "-twin"))
def test_a_kernel_that_takes_one_guest_for_all_goes_wrong_in_another(case: Case, tmp_path: Path) -> None:
    ordinary, other = (_run(case, tmp_path, options) for options in (PLAIN, BEHAVING[case.name]))
    assert (ordinary.ending, ordinary.status) == ("exit-port", 0)
    fine = (other.ending, other.status) == ("exit-port", 0)
    assert fine == (case.culprit is None), other.reason
    assert other.ending in ("exit-port", "poweroff", "triple-fault")


def test_what_the_monitor_says_it_watches_it_can_find() -> None:
    assert {case.clause for case in WRONG} >= set(WATCHED)


def test_each_wrong_kernel_breaks_a_clause_that_exists() -> None:
    assert {case.clause for case in cases()} <= set(BY_ID)
