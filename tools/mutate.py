#!/usr/bin/env python3
"""Take rules away from the code, one at a time, and see that a test fails for each.

    mutate.py ROOM [--list] [--only TEXT]   rooms are listed in ROOMS below

A mutant is a module with one change: an entry taken out of a module-level table, a condition always true or false, a
comparison turned round or moved by one, `and` made `or`. The modules are mutated in memory: an import hook in a
forked child gives the changed source to the tests, so nothing on disk changes and several run at once.

Prints a summary and each survivor; exits 1 if there is any, or if the tests fail without a mutation.
"""

from __future__ import annotations

import argparse
import ast
import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 6  # seconds until a mutant counts as hanging, which a test run would notice


@dataclass(frozen=True)
class Room:
    """What to mutate and what must notice.

    modules     dotted names, in pvh
    tests       files below tests/, in the order to run them: those that notice most, first
    skip        a pytest expression for tests that are too slow to repeat hundreds of times
    preload     modules without pvh in them, imported once for all children
    equivalent  mutants that change nothing anybody can see, by `module:line-free description`, and why
    """

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    skip: str = ""
    preload: tuple[str, ...] = ()
    equivalent: dict[str, str] | None = None


ROOMS = {
    "kernel": Room(
        modules=("verdict", "notes", "features", "read", "elf", "container", "codec", "lzop", "oddities", "naming"),
        tests=(
            "test_corpus.py",
            "test_container.py",
            "test_elf.py",
            "test_notes.py",
            "test_features.py",
            "test_advice.py",
        ),
        skip="a_bomb_is or large_file or 8_mib or lines_make",
        preload=("lz4.block", "zstandard", "lzma", "bz2", "hypothesis", "kernel.corpus", "kernel.refusals"),
    ),
    "xen": Room(
        modules=("vcpu", "vcpu_context", "vcpu_entry", "vcpu_features", "vcpu_op", "runstate", "timers"),
        tests=(
            "test_vcpu_context.py",
            "test_vcpu_entry.py",
            "test_vcpu_features.py",
            "test_vcpu.py",
            "test_vcpu_op.py",
            "test_runstate.py",
            "test_timers.py",
        ),
    ),
}

_TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}


@dataclass(frozen=True)
class Mutant:
    """A module's source with one change."""

    module: str
    line: int
    what: str
    source: str

    @property
    def name(self) -> str:
        """What identifies it across edits elsewhere in the file."""
        return f"{self.module}: {self.what}"


def mutants(module: str, source: str) -> Iterator[Mutant]:
    """Yield every mutant of a module. Each is made from a fresh tree, so that one never carries another's change."""
    count = len(list(_sites(ast.parse(source))))
    for index in range(count):
        tree = ast.parse(source)
        line, what, change = list(_sites(tree))[index]
        where = _function_at(tree, line)
        change()
        yield Mutant(module, line, f"{where}: {what}", ast.unparse(ast.fix_missing_locations(tree)))


def _function_at(tree: ast.Module, line: int) -> str:
    names = [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return ".".join(names) or "module"


Site = tuple[int, str, "Change"]


@dataclass
class Change:
    """A change to a tree, made when called: field (and index, in a list) of node becomes value; None removes."""

    node: ast.AST
    field: str
    value: object
    index: int | None = None

    def __call__(self) -> None:
        if self.index is None:
            setattr(self.node, self.field, self.value)
        elif self.value is None:
            del getattr(self.node, self.field)[self.index]
        else:
            getattr(self.node, self.field)[self.index] = self.value


def _sites(tree: ast.Module) -> Iterator[tuple[int, str, Change]]:
    for statement in tree.body:
        yield from _table_sites(statement)
    for node in ast.walk(tree):
        yield from _condition_sites(node)
        if isinstance(node, ast.Compare):
            for index, operator in enumerate(node.ops):
                turned = _TURNED[type(operator)]()
                text = f"{ast.unparse(node)}: {type(operator).__name__} becomes {type(turned).__name__}"
                yield node.lineno, text, Change(node, "ops", turned, index)
        if isinstance(node, ast.BoolOp):
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield node.lineno, f"{ast.unparse(node)}: becomes {type(other).__name__}", Change(node, "op", other)


def _table_sites(statement: ast.stmt) -> Iterator[tuple[int, str, Change]]:
    """Yield the removal of each entry of a module-level table: a tuple, list, set or dict with a name in capitals."""
    if isinstance(statement, ast.Assign):
        target, value = statement.targets[0], statement.value
    elif isinstance(statement, ast.AnnAssign) and statement.value:
        target, value = statement.target, statement.value
    else:
        return
    if not (isinstance(target, ast.Name) and target.id.isupper()):
        return
    if isinstance(value, ast.Tuple | ast.List | ast.Set) and len(value.elts) > 1:
        for index, entry in enumerate(value.elts):
            yield entry.lineno, f"{target.id} without {ast.unparse(entry)}", Change(value, "elts", None, index)


def _condition_sites(node: ast.AST) -> Iterator[tuple[int, str, Change]]:
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        text = ast.unparse(node.test)
        if text == "TYPE_CHECKING":
            return
        if not isinstance(node, ast.While):
            yield node.test.lineno, f"`{text}` becomes True", Change(node, "test", ast.Constant(value=True))
        yield node.test.lineno, f"`{text}` becomes False", Change(node, "test", ast.Constant(value=False))
    if isinstance(node, ast.comprehension):
        for index, condition in enumerate(node.ifs):
            text = ast.unparse(condition)
            yield condition.lineno, f"`{text}` becomes True", Change(node, "ifs", ast.Constant(value=True), index)


class Hook(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module another source."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        """Answer for that module only."""
        del path, target
        if fullname != self.name:
            return None
        return importlib.util.spec_from_loader(fullname, self, origin=str(self.path))

    def exec_module(self, module: ModuleType) -> None:
        """Run the changed source."""
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


def run(room: str, mutant: Mutant | None) -> int:
    """Fork a child that runs the room's tests on a mutant (None: on the code as it is); return its process id."""
    process = os.fork()
    if process:
        return process
    code = 99
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        signal.alarm(TIMEOUT)
        if mutant:
            sys.meta_path.insert(0, Hook(f"pvh.{room}.{mutant.module}", _path(room, mutant.module), mutant.source))
        import pytest

        tests = [str(ROOT / "tests" / room / name) for name in ROOMS[room].tests]
        select = ["-k", f"not ({ROOMS[room].skip})"] if ROOMS[room].skip else []
        code = int(
            pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--assert=plain", *select, *tests])
        )
    finally:
        os._exit(code)


def _path(room: str, module: str) -> Path:
    return ROOT / "src" / "pvh" / room / f"{module}.py"


def verdict(status: int) -> str:
    """Return what a child's wait status says about its mutant."""
    if os.WIFSIGNALED(status):
        return "hangs"
    code = os.WEXITSTATUS(status)
    return {0: "survived", 1: "noticed"}.get(code, "breaks")


def run_all(room: str, todo: list[Mutant], jobs: int) -> dict[str, list[Mutant]]:
    """Run every mutant, a few at once; return them by verdict."""
    results: dict[str, list[Mutant]] = {}
    running: dict[int, Mutant] = {}
    waiting = list(reversed(todo))
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            running[run(room, mutant)] = mutant
        process, status = os.wait()
        results.setdefault(verdict(status), []).append(running.pop(process))
    return results


def main() -> int:
    """Mutate one room."""
    parser = argparse.ArgumentParser(description="Take rules away, one at a time, and see that a test fails for each.")
    parser.add_argument("room", choices=sorted(ROOMS))
    parser.add_argument("--list", action="store_true", help="list the mutants, run nothing")
    parser.add_argument("--only", default="", metavar="TEXT", help="those whose name holds TEXT")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    options = parser.parse_args()
    room = ROOMS[options.room]
    every = [
        mutant
        for module in room.modules
        for mutant in mutants(module, _path(options.room, module).read_text())
        if options.only in mutant.name
    ]
    equivalent = room.equivalent or {}
    todo = [mutant for mutant in every if mutant.name not in equivalent]
    if options.list:
        print("\n".join(f"{mutant.name} (line {mutant.line})" for mutant in every))
        return 0
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # half of each run's start-up
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT), str(ROOT / "src")]
    for name in ("pytest", *room.preload):
        importlib.import_module(name)
    _, status = os.waitpid(run(options.room, None), 0)
    if verdict(status) != "survived":
        print("the tests fail without any mutation", file=sys.stderr)
        return 1
    start = time.monotonic()
    results = run_all(options.room, todo, options.jobs)
    for mutant in sorted(results.get("survived", []), key=lambda mutant: (mutant.module, mutant.line)):
        print(f"SURVIVED src/pvh/{options.room}/{mutant.module}.py:{mutant.line}: {mutant.what}")
    for name in sorted(set(equivalent) - {mutant.name for mutant in every}) if not options.only else []:
        print(f"STALE equivalent: {name}")
    counts = ", ".join(f"{len(found)} {name}" for name, found in sorted(results.items()))
    skipped = len(every) - len(todo)
    print(f"{len(every)} mutants of {options.room}: {counts}, {skipped} equivalent; {time.monotonic() - start:.0f} s")
    return 1 if results.get("survived") else 0


if __name__ == "__main__":
    sys.exit(main())
