"""The API's examples run: those of the docstrings, and the blocks of docs/api.md."""

from __future__ import annotations

import doctest
import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import pvh
from docs.transcript import bodies

ROOT = Path(__file__).resolve().parents[2]
GLOBS = {"pvh": pvh, "re": re}
BLOCKS = bodies((ROOT / "docs" / "api.md").read_text(encoding="utf-8"), "python")
NAMES = [name for name in pvh.__all__ if not name.startswith("__")]
FOUND = [test for name in NAMES for test in doctest.DocTestFinder().find(getattr(pvh, name), name, globs=GLOBS)]
EXAMPLES = [test for test in FOUND if test.examples]
# Public methods that have no example, and why.
BARE = {
    "Console.begin": "for the machine",
    "Console.end": "for the machine",
    "Console.hear": "for the machine",
    "Guest.hear": "for the machine",
}

USER = """
import re
from pathlib import Path
import pvh
from pvh.engines.exits import Hypercall
from pvh.pytest_plugin import PvhBoot

with pvh.boot("vmlinuz", pvh.BootOptions(memory=128 << 20), paused=True) as guest:
    reveal: int = guest.registers(0).rip
    data: bytes = guest.read(0x1000, 16, linear=True)
    guest.console.write("ls\\n")
    match: pvh.Match = guest.console.expect(b"x", re.compile(rb"(y)"), "z", timeout=3)
    group: bytes | None = match.groups[0]
    for event in guest.events():
        if isinstance(event.exit, Hypercall):
            number: int = event.exit.number
    moment: pvh.Snapshot = guest.snapshot()
    guest.restore(moment)
    outcome: pvh.Outcome = guest.wait()
    status: int = outcome.status
kernel: pvh.Kernel = pvh.read_kernel("vmlinuz")
plan: pvh.Plan = pvh.plan(kernel, pvh.BootOptions())
image: pvh.Image = pvh.build(plan)
ran: pvh.Ran = pvh.run_command("vmlinuz", "true", busybox="busybox", cache=False)
output: bytes = ran.output

def test_it(pvh_boot: PvhBoot) -> None:
    guest: pvh.Guest = pvh_boot(Path("kernel"), pvh.BootOptions(vcpus=2), paused=True)
    again: pvh.Guest = pvh_boot(guest.plan)
    options: pvh.BootOptions = pvh_boot.options
    lines: list[str] = again.explain()
"""
WRONG = """
def test_no(pvh_boot: PvhBoot) -> None:
    pvh_boot(5)
    number: int = pvh_boot()
    pvh_boot(memory="64M")

pvh.boot(5)
guest.console.write(7)
x: str = pvh.plan(kernel, pvh.BootOptions())
"""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_a_docstrings_example_gives_what_it_says(
    example: doctest.DocTest, specimen: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if example.name in ("Ran", "run_command"):
        # A Linux, and a cache of this session's own: one boot for both.
        monkeypatch.setenv("PVH_CACHE", str(tmp_path.parent / "boot cache"))
        example.globs |= {"vmlinuz": str(specimen("vmlinuz-cloud-6.1")), "busybox": str(specimen("busybox"))}
    said: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(example, out=said.append).failed == 0, "".join(said)


def documented() -> list[str]:
    """Every public name, and every public method of those that are classes."""
    found = list(NAMES)
    for name in NAMES:
        members = vars(getattr(pvh, name)).items() if inspect.isclass(getattr(pvh, name)) else ()
        found += [f"{name}.{member}" for member, thing in members if member[0] != "_" and inspect.isroutine(thing)]
    return found


def test_every_name_and_method_has_an_example_that_runs() -> None:
    assert {"boot", "Guest.step", "Console.write", "Kernel.note"} < set(documented())
    assert set(documented()) - {example.name for example in EXAMPLES} == set(BARE)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_of_the_page_runs(block: str) -> None:
    exec(compile(block, "docs/api.md", "exec"), {})


@pytest.mark.parametrize("checker", [["mypy", "--strict"], ["pyright"]], ids=["mypy", "pyright"])
def test_types_are_right_from_a_users_side(checker: list[str], tmp_path: Path) -> None:
    """The package is installed, and the program is elsewhere, without any configuration of ours."""
    program = tmp_path / "program.py"
    python = ["--python-executable", sys.executable] if checker[0] == "mypy" else ["--pythonpath", sys.executable]

    def check(text: str) -> subprocess.CompletedProcess[str]:
        program.write_text(text, encoding="utf-8")
        words = [sys.executable, "-m", *checker, *python, str(program)]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)

    good = check(USER)
    assert good.returncode == 0, good.stdout + good.stderr
    bad = check(USER + WRONG)
    assert bad.stdout.count("error") >= 6, bad.stdout
