"""The kernel's entry, seen by a kernel: exactly the planned state, on each engine (xen docs/misc/pvh.pandoc).

The same matrix runs on a genuine KVM in tests/nested.
"""

from __future__ import annotations

import os
import pathlib
from dataclasses import fields, replace
from functools import cache
from typing import Any

import pytest

from entry.expect import differences, expected, hidden_differences
from entry.matrix import ABIS, GUESTS, Case, cases, run
from pvh.build.cpu_state import CpuState, SegmentRegister, TableRegister
from pvh.build.entry import entry_state
from pvh.engines.engine import Engine
from pvh.engines.kvm.engine import KvmEngine
from pvh.engines.select import choose
from pvh.errors import NoEngine
from pvh.kernel.read import read_kernel
from pvh.plan.options import BootOptions, EngineName
from pvh.plan.planner import plan
from pvh.plan.record import Plan

CASES = tuple(cases())


@cache
def engine_of(name: EngineName) -> tuple[Engine | None, str]:
    """Return an engine and what was said of it; None where this machine has no such engine."""
    said: list[str] = []
    try:
        return choose(name, said.append), " ".join(said)
    except NoEngine as error:
        return None, str(error)


def the_plan(options: BootOptions) -> Plan:
    return plan(read_kernel(os.path.join(GUESTS, "entry64.elf")), options)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_guest_finds_the_planned_state_on_the_emulator(case: Case, tmp_path: pathlib.Path) -> None:
    engine, why_not = engine_of("emulator")
    assert engine, why_not
    assert run(case, engine, str(tmp_path)) == []


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_guest_finds_the_planned_state_on_kvm(case: Case, tmp_path: pathlib.Path) -> None:
    engine, said = engine_of("kvm")
    if engine is None:
        pytest.skip(said)
    assert isinstance(engine, KvmEngine)
    if case.ring3 and "iret32" in (check.name for check in engine.probe.failing):
        pytest.skip("no way to CPL 3 and back: this KVM fails at IRET in 32-bit protected mode")
    assert run(case, engine, str(tmp_path)) == []


def test_the_matrix_is_whole() -> None:
    """Issue 2, section 4: every ABI revision, 0, 1 and 3 modules, ELF32 and ELF64."""
    wanted = {(abi, modules, bits) for abi in ABIS for modules in (0, 1, 3) for bits in (32, 64)}
    assert wanted <= {(case.options.abi, case.modules, case.bits) for case in CASES}


def test_every_line_of_a_dump_counts() -> None:
    made = the_plan(BootOptions(cmdline="x"))
    lines = expected(made)
    assert differences(made, "\n".join(lines).encode()) == []
    for index, line in enumerate(lines):
        for changed in ([], [line + "0"], [line, line]):
            dump = [*lines[:index], *changed, *lines[index + 1 :]]
            assert differences(made, "\n".join(dump).encode()), (line, changed)


def test_every_field_of_the_hidden_state_counts() -> None:
    made = the_plan(BootOptions())
    right = entry_state(made)
    assert hidden_differences(made, right) == []
    other: dict[type, Any] = {
        int: 0xBAD,
        SegmentRegister: SegmentRegister(8),
        TableRegister: TableRegister(8),
        tuple: (7,) * 16,
    }
    for field in fields(CpuState):
        wrong = replace(right, **{field.name: other[type(getattr(right, field.name))]})
        assert [line.split(":")[0] for line in hidden_differences(made, wrong)] == [field.name]
