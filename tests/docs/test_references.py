"""The pages say what is so: what they name exists, codes and statuses are the source's, commands parse.

A page names a test by its pytest id in backquotes. `[name]` is one case, `[name...]` every case whose id begins so.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import pvh.cli
from pvh.cli.plain import Notes
from pvh.conformance.report import VIOLATED
from pvh.errors import NotAKernel, PvhError
from pvh.outcome import STATUS
from vcpuop.expect import expected

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SPECIFICATION = ROOT / "docs" / "specification.md"

_CLAUSE = re.compile(r"^\*\*([A-Z]+-\d+)\*\*(.*?)(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def references(text: str) -> list[str]:
    """Return what a text names of tests/, in backquotes."""
    return re.findall(r"`(tests/[^`\n]+)`", text)


@cache
def functions(path: str) -> frozenset[str]:
    """Return the tests of a file: `name` or `Class::name`."""
    found: set[str] = set()
    for node in ast.parse((ROOT / path).read_bytes()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return frozenset(name for name in found if name.rpartition("::")[2].startswith("test_"))


def exists(reference: str) -> bool:
    """Tell whether a file, a class or a function is there; which cases it has is not looked at."""
    path, _, name = reference.partition("[")[0].partition("::")
    if not name:
        return (ROOT / path).exists()
    if not (ROOT / path).is_file():
        return False
    tests = functions(path)
    return name in tests or any(test.startswith(f"{name}::") for test in tests)


@cache
def collected(files: tuple[str, ...]) -> frozenset[str]:
    """Return every id that pytest finds in some files."""
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(words, cwd=ROOT, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return frozenset(done.stdout.splitlines())


def is_case(reference: str, ids: frozenset[str]) -> bool:
    """Tell whether a reference with brackets names a case, or with dots before the last one, the begin of some."""
    if not reference.endswith("...]"):
        return reference in ids
    return any(known.startswith(reference.removesuffix("...]")) for known in ids)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_and_file_named_exists(page: Path) -> None:
    assert [reference for reference in references(text_of(page)) if not exists(reference)] == []


def test_every_case_named_exists() -> None:
    cases = {reference for page in PAGES for reference in references(text_of(page)) if "[" in reference}
    ids = collected(tuple(sorted({case.partition("::")[0] for case in cases})))
    assert sorted(case for case in cases if not is_case(case, ids)) == []


def test_what_does_not_exist_is_found() -> None:
    here = "tests/docs/test_references.py"
    assert exists(f"{here}::test_what_does_not_exist_is_found")
    assert exists("tests/xen/test_vcpu.py::TestTheLastOne::test_it_goes_down_last")
    assert exists("tests/xen/test_vcpu.py::TestTheLastOne")
    assert exists("tests/docs")
    for wrong in (
        "tests/none.py",
        f"{here}::test_none",
        f"{here}::references",
        f"{here}::Test::test_none",
        "tests/no/",
    ):
        assert not exists(wrong), wrong
    ids = frozenset({"a::b[one]", "a::b[one two]"})
    assert [is_case(f"a::b[{name}]", ids) for name in ("one", "on", "on...", "two...")] == [True, False, True, False]


def test_every_case_of_a_guest_named_exists() -> None:
    named = {name for page in PAGES for name in re.findall(r"`(s8\.[^`\n]+)`", text_of(page))}
    assert named
    assert named - set(expected("")) == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text_of(page))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def clauses() -> list[tuple[str, str]]:
    return _CLAUSE.findall(text_of(SPECIFICATION))


def test_every_clause_has_a_number_of_its_own_a_source_and_a_test() -> None:
    names = [name for name, _ in clauses()]
    assert names
    assert len(names) == len(set(names))
    assert [name for name, text in clauses() if "*Source:*" not in text] == []
    assert [name for name, text in clauses() if not any("::" in test for test in references(text))] == []


def test_every_clause_named_exists() -> None:
    names = {name for name, _ in clauses()}
    families = "|".join(sorted({name.partition("-")[0] for name in names}))
    named = {name for page in PAGES for name in re.findall(rf"\b(?:{families})-\d+\b", text_of(page))}
    assert named - names == set()


def rows(title: str) -> list[list[str]]:
    """Return the cells of the table below a heading of the specification, without its head."""
    section = text_of(SPECIFICATION).partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def finding_codes() -> Iterator[str]:
    """Yield the codes of findings: first arguments of Finding, and of functions that hand theirs on to it."""
    for path in sorted((ROOT / "src" / "pvh" / "kernel").glob("*.py")):
        tree = ast.parse(path.read_bytes())
        makers = {"Finding"}
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and any(code_of(call) is None for call in calls(node, {"Finding"})):
                makers.add(node.name)
        yield from (code for call in calls(tree, makers) if (code := code_of(call)))
    yield NotAKernel.code  # pvh inspect tells of it as of a finding


def code_of(call: ast.Call) -> str | None:
    first = call.args[0]
    return str(first.value) if isinstance(first, ast.Constant) else None


def calls(tree: ast.AST, names: set[str]) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in names:
                yield node


def test_finding_codes_are_the_sources() -> None:
    listed = [cells[0].strip("`") for cells in rows("Finding codes")]
    assert len(listed) == len(set(listed))
    assert sorted(listed) == sorted(set(finding_codes()))


def errors(top: type[PvhError] = PvhError) -> Iterator[type[PvhError]]:
    """Yield the classes of errors that have a code of their own; Refused stands for those below it."""
    if top is PvhError or not top.__subclasses__():
        yield top
    for below in top.__subclasses__():
        if below.__module__ == PvhError.__module__:
            yield from errors(below)


def test_exit_statuses_are_the_sources() -> None:
    listed = {(cells[1].strip("`"), int(cells[0])) for cells in rows("Exit statuses") if cells[0].isdigit()}
    of_errors = ((error.code, error.status) for error in errors())
    assert listed == {*STATUS.items(), *of_errors, ("violation", VIOLATED)}


def commands(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each `pvh` command in fenced sh, without what a shell would take for itself."""
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["pvh"]:
                ends = [index for index, word in enumerate(words) if word[:1] in "|>&;<" or word.startswith("2>")]
                yield words[1 : min(ends, default=len(words))]


class Parsed(BaseException):
    """A command line was read without complaint. (Nothing catches it on its way.)"""


def parse_only(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    """Let the command read its arguments, and go no further; a mistake is SystemExit or a status."""
    real = ArgumentParser.parse_args

    def stop(self: ArgumentParser, *arguments: Any) -> None:
        real(self, *arguments)
        raise Parsed

    def not_plain(_: Notes, __: list[str]) -> None:
        raise ValueError("let argparse read it")

    monkeypatch.setattr(ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(Notes, "read", not_plain)
    if {"--help", "--version"} & set(words):
        assert words[0].startswith("--") or words[0] in pvh.cli.COMMANDS
        return
    with pytest.raises(Parsed):
        pvh.cli.main(words)


LINES = [(page.name, words) for page in PAGES for words in commands(text_of(page))]


@pytest.mark.parametrize(("page", "words"), LINES, ids=[f"{page}: {' '.join(words)}" for page, words in LINES])
def test_commands_parse(page: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert page
    parse_only(monkeypatch, words)


@pytest.mark.parametrize("line", ["pvh run --no-such-option k", "pvh nothing", "pvh inspect", "pvh plan k --engine x"])
def test_a_command_that_is_none_is_found(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (words,) = commands(f"```sh\n{line} | less   # comment\n```\n")
    with pytest.raises((SystemExit, pytest.fail.Exception)):
        parse_only(monkeypatch, words)
