"""What is upheld was put to the test: not by a boot that fails, nor by one that ended before it read what it is of."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.relies import written
from conformance.test_check import checked
from pvh.conformance.boot import Limits
from pvh.conformance.checker import Task
from pvh.conformance.milestone import parse
from pvh.conformance.report import Report, check
from pvh.demo import demo_path
from pvh.engines.engine import Engine
from pvh.engines.select import choose
from pvh.kernel.read import read_kernel
from pvh.plan.options import BootOptions

_END = "b000 e6f4 f4"
_DATA = ("memmap.", "cmdline.", "modules.", "rsdp.", "version.")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return choose("emulator", print)


def states(report: Report, *parts: str) -> dict[str, str]:
    return {one.clause.id: one.state for one in report.verdicts if one.clause.id.startswith(parts)}


def until(engine: Engine, path: str, text: str) -> Report:
    task = Task(read_kernel(path), BootOptions(), (parse(text),), Limits(10.0))
    return check(task, engine, 1, 1, only=lambda _name: True, tell=lambda _what, _count: None)


def test_a_kernel_that_does_not_boot_upholds_nothing_but_what_its_file_shows(engine: Engine, tmp_path: Path) -> None:
    report = checked(engine, written(tmp_path, "dead.elf", bytes.fromhex("0f0b")))
    upheld = {one.clause.part for one in report.verdicts if one.state == "upheld"}
    assert upheld == {"file"}


def test_nor_does_one_whose_milestone_is_not_reached(engine: Engine) -> None:
    report = until(engine, demo_path(), "console:no such words")
    assert not report.booted
    assert {one.clause.part for one in report.verdicts if one.state == "upheld"} == {"file"}


@pytest.mark.parametrize("number", [0, 1, 10])
def test_a_boot_that_ends_at_once_has_not_read_start_info(engine: Engine, number: int) -> None:
    report = until(engine, demo_path(), f"instructions:{number}")
    assert report.booted
    found = states(report, *_DATA, "memory.amount", "vcpus")
    assert set(found.values()) <= {"not exercised", "upheld"}
    # Of these the monitor, which goes on, looks at the module list's end only.
    assert [clause for clause, state in found.items() if state == "upheld"] == ["modules.count"]


def test_the_same_kernel_run_to_its_end_has_read_all_but_the_rsdp(engine: Engine) -> None:
    found = states(checked(engine, demo_path()), *_DATA)
    assert [clause for clause, state in found.items() if state != "upheld"] == ["rsdp.absent", "rsdp.placement"]


@pytest.mark.parametrize(
    ("reads", "upheld"),
    [
        ("", ()),
        ("8b4304", ("version.",)),  # version
        ("8b4320", ("version.", "rsdp.")),  # rsdp_paddr
        ("8b5328 85d2 7402 8b0a", ("version.", "memmap.")),  # memmap_paddr; the first entry
        ("8b5310 85d2 7402 8b0a", ("version.", "modules.")),  # modlist_paddr; the first module
        ("8b5318 85d2 7402 8b0a", ("version.", "cmdline.")),  # cmdline_paddr; the first characters
    ],
    ids=["nothing", "start_info", "rsdp", "memmap", "modules", "cmdline"],
)
def test_what_is_read_is_put_to_the_test_and_nothing_else(
    engine: Engine, tmp_path: Path, reads: str, upheld: tuple[str, ...]
) -> None:
    report = checked(engine, written(tmp_path, "reads.elf", bytes.fromhex(f"{reads} {_END}")))
    found = states(report, *_DATA)
    assert {clause.partition(".")[0] + "." for clause, state in found.items() if state == "upheld"} == set(upheld)
