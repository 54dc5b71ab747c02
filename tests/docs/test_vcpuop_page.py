"""docs/vcpuop.md is what tests/vcpuop/page.py makes: the emulator runs, the other columns are committed logs."""

from __future__ import annotations

import pytest

from oracle.recorded import ROOT
from vcpuop.page import COLUMNS, EMULATOR, GENUINE, PAGE, UNNAMED, XEN, columns, compare, page, why


def test_the_page_is_as_made_now() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run it anew: python -m vcpuop.page, in tests/"


def test_the_emulator_and_the_genuine_kvm_break_no_rule_and_no_other_difference_is_without_a_name() -> None:
    found = {
        (column, cell.difference)
        for *_, cells in compare(columns())
        for column, cell in zip(COLUMNS, cells, strict=True)
    }
    assert not [column for column, name in found if name == UNNAMED]
    assert {name for column, name in found if column == EMULATOR} == {""}
    assert {name for column, name in found if column == GENUINE} == {"", "processor"}


def test_no_column_has_a_case_that_is_not_in_the_table() -> None:
    answers = columns()
    rules = {case for case, *_ in compare(answers)}
    extra = {case for found in answers.values() for case in found if case not in rules}
    assert [case for case in extra if not case.startswith("cpuid.")] == []


@pytest.mark.parametrize("column", COLUMNS)
def test_an_answer_that_nobody_explained_has_no_name(column: str) -> None:
    assert why(column, "s8.up-is_up", "0") == UNNAMED


def test_every_difference_of_xen_is_explained_in_the_oracles_page() -> None:
    told = (ROOT / "docs" / "oracle.md").read_text(encoding="utf-8")
    names = {cells[COLUMNS.index(XEN)].difference for *_, cells in compare(columns())} - {"", "volatile"}
    assert names
    assert [name for name in names if f"| `{name}` |" not in told] == []
