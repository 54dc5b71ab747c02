"""Every rule of the facts' sections 1 and 5, on kernels made for it.

Refusals of whole files are in test_container.py.
"""

from __future__ import annotations

import operator
from dataclasses import replace

import pytest

from elfwriter import entry_note, kernel
from kernel import refusals
from kernel.case import DRAFT_C_NOTES, Case
from kernel.corpus import CASES
from kernel.rules import RULES
from pvh.abi import elfnote
from pvh.kernel.oddities import draft_c
from pvh.kernel.read import read_source
from pvh.kernel.record import Features, Kernel
from pvh.kernel.source import BytesSource
from pvh.kernel.verdict import problems


def read(data: bytes) -> Kernel:
    return read_source(BytesSource("kernel", data))


def look_up(kernel: Kernel, name: str) -> object:
    """Return an attribute by dotted name; numbers index, `value_N` is note N's value, `formats` the layers'."""
    if name.startswith("value_"):
        note = kernel.note(int(name.removeprefix("value_")))
        return note.value if note else None
    if name == "formats":
        return tuple(layer.format for layer in kernel.layers)

    def step(thing: object, part: str) -> object:
        return operator.getitem(thing, int(part)) if part.isdigit() else getattr(thing, part)  # type: ignore[call-overload]

    found: object = kernel
    for part in name.split("."):
        found = step(found, part)
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_case(case: Case) -> None:
    kernel = read(case.data)
    assert tuple(finding.code for finding in kernel.problems) == case.problems
    assert tuple(finding.code for finding in kernel.warnings) == case.warnings
    assert {name: look_up(kernel, name) for name in case.facts} == case.facts
    assert kernel.bootable == (not case.problems)


def test_every_rule_is_cited() -> None:
    cited = {"1-required-supported"}
    cited |= {case.id.split("/")[0] for case in CASES}
    cited |= {cite for case in refusals.CASES for cite in case.cites}
    assert cited == set(RULES)


@pytest.mark.parametrize(("supported", "codes"), [(4, []), (0, ["feature-unsupported"]), (2, ["feature-unsupported"])])
def test_required_but_not_supported(supported: int, codes: list[str]) -> None:
    """1-required-supported: the notes cannot say so themselves, because `!` supports too; a made record can."""
    made = replace(read(kernel(entry_note())), features=Features(supported, required=4))
    assert [finding.code for finding in problems(made)] == codes


def test_no_two_cases_have_one_name() -> None:
    ids = [case.id for case in CASES]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("missing", range(len(DRAFT_C_NOTES)))
def test_draft_c_lists_seven_notes(missing: int) -> None:
    """Of Draft C's list only PHYS32_ENTRY decides; each other note that lacks is a warning where it is asked for."""
    records = DRAFT_C_NOTES[:missing] + DRAFT_C_NOTES[missing + 1 :]
    found = read(kernel(*records))
    number = int.from_bytes(DRAFT_C_NOTES[missing][8:12], "little")
    assert [finding.field for finding in draft_c(found)] == [elfnote.KINDS[number][0]]
    assert found.bootable == (number != elfnote.PHYS32_ENTRY)


def test_draft_c_has_no_warning_for_its_own_example() -> None:
    assert draft_c(read(kernel(*DRAFT_C_NOTES))) == ()
