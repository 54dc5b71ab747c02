"""The table of clauses: ids are unique, and the page made from it is current."""

from __future__ import annotations

import re

from conformance.behind import BEHIND
from conformance.kernels import cases
from conformance.page import PAGE, page
from pvh.conformance.clauses import BY_ID, CLAUSES, of_kernel


def test_every_id_is_unique_and_readable() -> None:
    assert len(BY_ID) == len(CLAUSES)
    assert [clause.id for clause in CLAUSES if not re.fullmatch(r"[a-z0-9_]+([.-][a-z0-9]+)*", clause.id)] == []


def test_every_clause_has_a_text_and_a_source_in_xens_tree() -> None:
    for clause in CLAUSES:
        assert clause.text.endswith("."), clause.id
        assert clause.source.startswith(("docs/", "tools/", "xen/")), clause.id


def test_some_clauses_bind_the_loader_only() -> None:
    assert {"entry.ebx", "memory.bss-zero"} & {clause.id for clause in of_kernel()} == set()
    assert "entry.esp" in {clause.id for clause in of_kernel()}


def test_tests_are_named_of_clauses_that_exist() -> None:
    assert set(BEHIND) - set(BY_ID) == set()


def test_every_clause_has_its_tests_and_these_are_there() -> None:
    root = PAGE.parents[1]
    names = {case.name for case in cases() if case.culprit}
    for clause in CLAUSES:
        assert BEHIND.get(clause.id), clause.id
        for test in BEHIND[clause.id]:
            file, _, name = test.partition("::")
            function, _, case = name.rstrip("]").partition("[")
            wanted = rf"^(def|class) {function}\b" if name else ""
            assert re.search(wanted, (root / file).read_text(encoding="utf-8"), re.MULTILINE), test
            assert not case or case in names | set(BY_ID), test


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()
