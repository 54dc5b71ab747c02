"""Two engines side by side: the first exit in which a guest does something else is shown."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pvh.cli import main
from pvh.conformance.differential import Comparison, compare
from pvh.conformance.milestone import parse as milestone
from pvh.engines.exits import Hypercall, MmioWrite, PortIn, PortOut, Shutdown
from pvh.engines.scripted import ScriptedEngine, Step
from pvh.kernel.read import read_kernel
from pvh.plan.options import BootOptions

GUESTS = Path(__file__).resolve().parents[1] / "guests"
HELLO = str(GUESTS / "hello.elf")
SAID = PortOut(0xE9, 1, 65)
END = PortOut(0xF4, 1, 0)
CALL = Hypercall(17, (6, 0, 0, 0, 0), 64, 0)


def compared(first: list[Step], second: list[Step], *until: str) -> Comparison:
    way = tuple(map(milestone, until))
    return compare(read_kernel(HELLO), BootOptions(), (ScriptedEngine(first), ScriptedEngine(second)), 5.0, way)


def test_the_same_is_no_difference() -> None:
    found = compared([SAID, CALL, END], [SAID, CALL, END])
    assert (found.agreed, found.difference) == (3, None)


def test_the_first_difference_is_shown() -> None:
    found = compared([SAID, CALL, END], [SAID, Hypercall(17, (7, 0, 0, 0, 0), 64, 0), SAID, END])
    assert found.agreed == 1
    assert found.difference is not None
    assert found.difference.index == 1
    assert str(found.difference.first).startswith("xen_version(0x6, ...) in 64-bit code, at 0x")
    assert str(found.difference.second).startswith("xen_version(0x7, ...)")


def test_what_only_one_engine_gives_is_not_compared() -> None:
    found = compared([MmioWrite(0xFEE000B0, 4, 0), SAID, END], [SAID, END])
    assert (found.agreed, found.difference) == (2, None)


def test_a_guest_that_ends_early_differs() -> None:
    found = compared([SAID, SAID, END], [SAID, Shutdown()])
    assert found.difference is not None
    assert str(found.difference.second).startswith("a triple fault")
    found = compared([PortIn(0x60, 1), END], [PortIn(0x60, 1), END])
    assert found.difference is None


def test_what_comes_after_the_milestone_is_not_compared() -> None:
    first: list[Step] = [SAID, CALL, END]
    second: list[Step] = [SAID, CALL, SAID, END]
    assert compared(first, second).difference is not None
    for until in ("console:A", "hypercall:xen_version"):
        found = compared(first, second, until)
        assert (found.difference, found.missing) == (None, ("", ""))
    found = compared([SAID, CALL, END], [SAID, END], "hypercall:xen_version")
    assert found.difference is not None
    assert found.missing == ("", "it calls xen_version")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--html", "d.html"], "--html does not go with --differential"),
        (["--profile", "nasty"], "--profile does not go with --differential"),
        (["--jobs", "3"], "--jobs does not go with --differential"),
        (["--seed=1"], "--seed does not go with --differential"),
        (["--engine", "kvm"], "--engine does not go with --differential, which runs the emulator and KVM"),
        (["--until", "long-mode"], "both engines have to tell when that is"),
        (["--until", "nonsense"], "no such milestone"),
    ],
)
def test_what_makes_no_sense_is_refused(capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    assert main(["check", "--differential", *words, HELLO]) == 2
    assert told in capsys.readouterr().err
    assert not Path("d.html").exists()


@pytest.mark.parametrize("guest", ["hello", "entry64"])
def test_emulator_and_kvm_agree(capsys: pytest.CaptureFixture[str], guest: str) -> None:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("no /dev/kvm here")
    path = str(GUESTS / f"{guest}.elf")
    assert main(["check", "--differential", "--json", "--timeout", "20", path]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["engines"] == ["emulator", "kvm"]
    assert told["agreed"] >= 15
    assert told["difference"] is None
