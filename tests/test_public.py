"""The public surface: what `import pvh` offers, that all of it resolves, is described and typed."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import tomllib
import types
import typing
from pathlib import Path

import pytest

import pvh
from pvh.plan.options import BootOptions

SOURCE = Path(pvh.__file__).parent
NAMES = [name for name in pvh.__all__ if not name.startswith("__")]


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_all_is_sorted_and_complete() -> None:
    assert sorted(pvh.__all__) == list(pvh.__all__) == sorted(dict.fromkeys(pvh.__all__))
    assert "__version__" in pvh.__all__
    assert set(NAMES) <= set(dir(pvh))


@pytest.mark.parametrize("name", NAMES)
def test_each_name_resolves_alone_in_a_fresh_interpreter(name: str) -> None:
    """First use of a name must not depend on another having been used before (a function may share its room's name)."""
    assert run(f"import pvh; print(pvh.{name}.__name__)") == name
    assert run(f"from pvh import {name}; print({name}.__name__)") == name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("other", NAMES)
def test_no_name_hides_another(name: str, other: str) -> None:
    """Importing a room sets an attribute of the package: it must not take the place of a name of `__all__`."""
    getattr(pvh, other)
    found = getattr(pvh, name)
    assert not isinstance(found, types.ModuleType)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_described_and_fully_typed(name: str) -> None:
    thing = getattr(pvh, name)
    assert inspect.getdoc(thing), f"pvh.{name} has no docstring"
    hints = typing.get_type_hints(thing)
    if inspect.isfunction(thing):
        assert set(hints) == {*inspect.signature(thing).parameters, "return"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'pvh' has no attribute 'nonsense'"):
        getattr(pvh, "non" + "sense")


def test_import_loads_nothing_else_of_the_package() -> None:
    assert run("import sys, pvh; print([name for name in sys.modules if name.startswith('pvh')])") == "['pvh']"


def test_type_checkers_see_the_package(root: Path) -> None:
    assert (SOURCE / "py.typed").exists()
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == pvh.__version__


def public(tree: ast.Module | ast.ClassDef, prefix: str) -> list[tuple[str, ast.AST]]:
    found: list[tuple[str, ast.AST]] = []
    for node in tree.body:
        setter = any(
            isinstance(by, ast.Attribute) and by.attr == "setter" for by in getattr(node, "decorator_list", ())
        )
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_") and not setter:
            found.append((f"{prefix}.{node.name}", node))
            if isinstance(node, ast.ClassDef):
                found += public(node, f"{prefix}.{node.name}")
    return found


def test_every_public_class_and_function_of_every_room_has_a_docstring() -> None:
    bare: list[str] = []
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_bytes())
        name = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
        if not ast.get_docstring(tree):
            bare.append(name)
        for place, node in public(tree, name):
            assert isinstance(node, (ast.ClassDef, ast.FunctionDef))
            if not ast.get_docstring(node):
                bare.append(place)
    assert bare == []


def test_users_of_the_package_get_its_types() -> None:
    """`make types` checks these lines with mypy and pyright: the facade must not hand out Any."""
    typing.assert_type(pvh.BootOptions(), BootOptions)
    typing.assert_type(pvh.BootOptions().memory, int)
    typing.assert_type(pvh.ModuleSpec("initrd").cmdline, str | None)
