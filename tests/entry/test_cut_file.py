"""A module's file is cut while the guest runs: it goes on, and the outcome names the file (issue 2, section 4)."""

from __future__ import annotations

import os
import pathlib

import pytest

from entry.expect import checksum
from entry.matrix import GUESTS
from pvh.build import builder
from pvh.engines.select import choose
from pvh.errors import NoEngine
from pvh.kernel.read import read_kernel
from pvh.machine import Machine
from pvh.outcome import Outcome
from pvh.plan.options import BootOptions, EngineName, ModuleSpec
from pvh.plan.planner import plan

DATA = b"\xa5" * 0x10000
LEFT = 0x4000


@pytest.fixture
def path(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(builder, "MAP_FROM", len(DATA))
    (tmp_path / "module").write_bytes(DATA)
    return str(tmp_path / "module")


def run_and_cut(name: EngineName, path: str) -> tuple[Outcome, list[str]]:
    """Cut the module between the build and the first instruction; return the outcome and what the guest said."""
    engine = choose(name, lambda _: None)
    options = BootOptions(cmdline="quick", modules=(ModuleSpec(path),), timeout=60)
    image = builder.build(plan(read_kernel(os.path.join(GUESTS, "entry64.elf")), options))
    assert image.mapped == len(DATA)
    said = bytearray()
    machine = Machine(image, engine, said.extend)
    os.truncate(path, LEFT)
    outcome = machine.run()
    image.ram.close()
    return outcome, said.decode().splitlines()


def test_on_the_emulator_the_guest_finds_zeroes(path: str) -> None:
    outcome, said = run_and_cut("emulator", path)
    assert (outcome.ending, outcome.status) == ("exit-port", 0), outcome.reason
    wanted = checksum(DATA[:LEFT] + bytes(len(DATA) - LEFT))
    assert said.count(f"module00.sum={wanted:08x}") == 2
    assert outcome.changed == (
        f"{path} was cut from {len(DATA)} to {LEFT} bytes",
        "12 pages that were cut turned to zeroes in the guest",
    )


def test_on_kvm_the_file_is_named(path: str) -> None:
    """KVM may also end the run: the genuine one says EFAULT, the engine's business."""
    try:
        outcome, _ = run_and_cut("kvm", path)
    except NoEngine as error:
        pytest.skip(str(error))
    assert outcome.changed[0] == f"{path} was cut from {len(DATA)} to {LEFT} bytes"
