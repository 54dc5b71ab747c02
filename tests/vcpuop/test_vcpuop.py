"""The table of vcpu_op cases, run whole (tests/guests/vcpuop.S); each line is a rule of the ABI (vcpuop/expect.py)."""

from __future__ import annotations

import os
import re

import pytest

from pvh.engines.engine import Engine
from pvh.xen import vcpu_context
from smp.boot import GUESTS, boot, engine_of
from vcpuop.expect import differences, expected, parse

VCPUS = 9  # what vcpuop.S asks for


@pytest.fixture(scope="module")
def emulator() -> Engine:
    engine, why_not = engine_of("emulator")
    assert engine, why_not
    return engine


@pytest.fixture(scope="module")
def said(emulator: Engine) -> str:
    text, outcome = boot("vcpuop", emulator, VCPUS)
    assert outcome.ending == "poweroff", outcome.reason
    return text


def test_every_case_is_as_xen_answers_it(said: str) -> None:
    assert differences(said) == []


def test_a_second_run_answers_the_same(said: str, emulator: Engine) -> None:
    assert boot("vcpuop", emulator, VCPUS)[0] == said


def test_modes_can_be_left_out(emulator: Engine) -> None:
    text, outcome = boot("vcpuop", emulator, VCPUS, "nopae noring3")
    assert differences(text, frozenset(("pae", "ring3"))) == [], outcome.reason


@pytest.mark.parametrize("vcpus", [1, 2, 8])
def test_with_fewer_vcpus_it_comes_to_an_end(vcpus: int, emulator: Engine) -> None:
    """Without a vCPU to bring the BSP up again, its `down` is the domain's end (vcpu.h, VCPUOP_down)."""
    text, outcome = boot("vcpuop", emulator, vcpus)
    assert outcome.ending == "poweroff", outcome.reason
    assert parse(text)["vcpus"] == str(vcpus)


def test_every_line_counts(said: str) -> None:
    """The comparison sees each line that is changed, missing or new."""
    lines = said.splitlines()
    for index, line in enumerate(lines):
        name, _, value = line.partition("=")
        if name == "vcpus" or name.startswith("cpuid."):
            continue  # taken from the guest: what it says of CPUID decides about other lines
        for changed in ([], [f"{name}={value}0"]):
            assert differences("\n".join([*lines[:index], *changed, *lines[index + 1 :]])), line
    assert differences(said + "s8.new=0\n") == ["s8.new: wanted no such line, found 0"]


def test_every_rule_of_the_validation_has_cases_on_both_sides(said: str) -> None:
    """Facts s8: rules 1 to 7 of mode 32B and the rules of mode 64B. Rule 1 has nothing but zero inside."""
    results = parse(said)
    for rule in ("1", "2", "3", "4", "5", "6", "7", "64"):
        values = {value for name, value in results.items() if name.startswith(f"s8.{rule}-")}
        assert values == ({"-22"} if rule == "1" else {"-22", "0"}), rule


SETS = ("CS_RULES", "SS_RULES", "DATA_RULES", "TR_RULES", "RULES_32B", "RULES_64B")
RULES = [(name, rule) for name in SETS for rule in getattr(vcpu_context, name)]


@pytest.mark.parametrize(("name", "rule"), RULES, ids=[f"{name}-{rule.__name__}" for name, rule in RULES])
def test_without_a_rule_a_case_that_cites_it_fails(
    name: str, rule: object, emulator: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No rule of the validation can go unnoticed (issue 3, "removing the rule from the code makes a case fail")."""
    whole = getattr(vcpu_context, name)
    less = tuple(each for each in whole if each is not rule)
    monkeypatch.setattr(vcpu_context, name, less)
    segments = tuple(less if rules is whole else rules for rules in vcpu_context.SEGMENT_RULES)
    monkeypatch.setattr(vcpu_context, "SEGMENT_RULES", segments)
    found = differences(boot("vcpuop", emulator, VCPUS)[0])
    assert found
    assert all(line.startswith("s8.") for line in found)


def test_every_case_in_the_source_says_something(said: str) -> None:
    with open(os.path.join(GUESTS, "vcpuop_cases.inc"), encoding="utf-8") as stream:
        named = re.findall(r'^        (?:context|start|op|op_at|value) "([^"\\]+)"', stream.read(), re.MULTILINE)
    ends = {name.partition(".")[2] for name in expected(said)}
    assert [name for name in named if name not in ends] == []
