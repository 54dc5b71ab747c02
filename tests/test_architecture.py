"""The shape of the package (docs/design.md): dependencies point one way, and files stay small enough to read."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "pvh"

# Each room may import from itself and from those on lines below its own. The seam between engines and personality,
# on the lines of neither, is for both.
ROOMS = (
    {"__main__", "pytest_plugin"},
    {"command"},
    {"cli"},
    {"conformance"},
    {
        "machine",
        "board",
        "processors",
        "interrupts",
        "trace",
        "outcome",
        "diagnosis",
        "disassembly",
        "symbols",
        "core",
        "snapshot",
        "guest",
        "events",
        "console",
        "guest_ended",
        "cache",
        "export",
        "gdb",
        "timeline",
    },
    {"xen", "engines"},
    {"devices"},
    {"xenstore"},
    {"build"},
    {"plan"},
    {"kernel"},
    {"abi"},
    {"demo"},
    {"given"},
    {"amounts", "errors", "host", "native", "initramfs", "clock"},
    {"kept"},
    {"record"},
    {"hints"},
)
RANK = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}
MACHINE = RANK["machine"]  # files of one room that lie on the top level
SEAM = {"pvh.engines.engine", "pvh.engines.exits"}

LONGEST_FILE, MEDIAN_FILE, LONGEST_FUNCTION = 600, 200, 40


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def module(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(name: str) -> str:
    return [*name.split("."), ""][1]


def imports(path: Path) -> Iterator[str]:
    """Every module of the package that a file imports, also inside functions and for types only."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("pvh."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            if node.module == "pvh":
                yield from (f"pvh.{alias.name}" for alias in node.names if alias.name in RANK)
            elif node.module and node.module.startswith("pvh."):
                yield node.module


INNER = [path for path in files() if module(path) != "pvh"]


@pytest.mark.parametrize("path", INNER, ids=module)
def test_dependencies_point_one_way(path: Path) -> None:
    own = room(module(path))
    assert own in RANK, f"{own} has no place in the order of rooms"
    for name in imports(path):
        assert room(name) in RANK, f"{name} has no place in the order of rooms"
        same_room = room(name) == own or RANK[own] == RANK[room(name)] == MACHINE
        seam = name in SEAM and own in ("xen", "devices")
        assert same_room or seam or RANK[room(name)] > RANK[own], f"{module(path)} imports {name}"


def test_the_facade_imports_nothing_until_it_is_used() -> None:
    top = ast.parse((SOURCE / "__init__.py").read_bytes()).body
    names = [node.module for node in top if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in top if isinstance(node, ast.Import) for alias in node.names]
    assert not [name for name in names if name and name.startswith("pvh")]


def test_files_are_short() -> None:
    sizes = {module(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files()}
    assert {name: size for name, size in sizes.items() if size > LONGEST_FILE} == {}
    assert statistics.median(sizes.values()) <= MEDIAN_FILE


def test_functions_are_short() -> None:
    long = {
        f"{module(path)}.{node.name}": node.end_lineno - node.lineno + 1
        for path in files()
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None
        if node.end_lineno - node.lineno >= LONGEST_FUNCTION
    }
    assert long == {}


RECORDS = (
    "kernel/record.py",
    "plan/options.py",
    "plan/record.py",
    "build/cpu_state.py",
    "build/image.py",
    "outcome.py",
)


@pytest.mark.parametrize("path", RECORDS)
def test_what_the_pipeline_hands_on_is_frozen_and_slotted(path: str) -> None:
    lines = [line.strip() for line in (SOURCE / path).read_text(encoding="utf-8").splitlines()]
    made = [line for line in lines if line.startswith("@dataclass")]
    assert made
    assert all("frozen=True" in line and "slots=True" in line for line in made)
