"""What --json prints is what docs/json.md says: each command's real output, by its schema."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance.schema import errors
from pvh import demo_path
from pvh.cli import main
from pvh.cli.check_differential import as_dict
from pvh.conformance.differential import compare
from pvh.engines.exits import PortOut, Shutdown
from pvh.engines.scripted import ScriptedEngine, Step
from pvh.kernel.read import read_kernel
from pvh.plan.options import BootOptions

DOCS = Path(__file__).resolve().parents[2] / "docs"
HELLO = str(DOCS.parent / "tests" / "guests" / "hello.elf")
SCHEMAS: dict[str, dict[str, Any]] = {
    path.name.removesuffix(".schema.json"): json.loads(path.read_text(encoding="utf-8"))
    for path in DOCS.glob("*.schema.json")
}
PRINTED = {
    "check": [["check", HELLO, "--profile", "nasty"], ["check", demo_path(), "--profile", "no-acpi", "--seed", "3"]],
    "probe": [["probe", "pvh-emulator"], ["probe", "pvh-emulator", "--form", "bzimage", "--against", "none"]],
    "loaders": [["inspect", "--loaders", HELLO], ["inspect", "--loaders", demo_path()]],
    "error": [
        ["check", "/nowhere"],
        ["check", HELLO, "--profile", "none"],
        ["probe"],
        ["probe", "--dump", HELLO],
        ["inspect", "--loaders", str(DOCS / "check.md")],
        ["inspect", "--loaders", "/nowhere"],
        ["check", HELLO, "--differential", "--html", "x"],
    ],
}


def wrong(name: str, told: dict[str, Any]) -> list[str]:
    return list(errors(told, SCHEMAS[name], SCHEMAS[name]))


@pytest.mark.parametrize(
    ("name", "words"), [(name, words) for name, lines in PRINTED.items() for words in lines], ids=str
)
def test_what_is_printed_is_by_its_schema(name: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status = main([*words, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert wrong(name, told) == []
    assert (status in (0, 15)) == (name != "error")


@pytest.mark.parametrize("second", [[PortOut(0xE9, 1, 65)], [PortOut(0xE9, 1, 66)], [Shutdown()], []], ids=str)
def test_a_comparison_is_by_its_schema(second: list[Step]) -> None:
    kernel = read_kernel(HELLO)
    end = PortOut(0xF4, 1, 0)
    engines = ScriptedEngine([PortOut(0xE9, 1, 65), end]), ScriptedEngine([*second, end])
    told = json.loads(json.dumps(as_dict(kernel, compare(kernel, BootOptions(), engines, 5.0))))
    assert wrong("differential", told) == []


@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="no /dev/kvm here")
def test_a_real_comparison_is_by_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--differential", "--json", "--until", "console:Hello", "--timeout", "20", HELLO]) == 0
    told = json.loads(capsys.readouterr().out)
    assert wrong("differential", told) == []
    assert told["missing"] == ["", ""]


SPOILT: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("check", lambda told: told.update(schema=2), "2 is not 1"),
    ("probe", lambda told: told.update(schema="pvh.probe/2"), "'pvh.probe/2' is not 'pvh.probe/1'"),
    ("probe", lambda told: told["facts"].update(eax=None), "None is no integer or string"),
    ("probe", lambda told: told["verdicts"][0].update(answer="yes"), "'yes' is none of"),
    ("probe", lambda told: told.pop("memmap"), "no memmap"),
    ("loaders", lambda told: told.pop("schema"), "no schema"),
    ("loaders", lambda told: told["loaders"][0].update(entry="0x100000"), "is no integer or null"),
    ("loaders", lambda told: told.update(more=1), "more is not in the schema"),
    ("error", lambda told: told["error"].pop("code"), "no code"),
]


@pytest.mark.parametrize(("name", "spoil", "said"), SPOILT)
def test_what_is_otherwise_is_not_by_its_schema(
    name: str, spoil: Callable[[dict[str, Any]], object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*PRINTED[name][0], "--json"])
    told = json.loads(capsys.readouterr().out)
    spoil(told)
    assert said in "\n".join(wrong(name, told))


def test_the_page_lists_each_schema_with_its_version() -> None:
    page = (DOCS / "json.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((\w+)\.schema\.json\)", page)) == set(SCHEMAS)
    for name, schema in SCHEMAS.items():
        if name != "error":
            version = schema["properties"]["schema"]["const"]
            assert f"| `{version}` | [{name}.schema.json]" in page
