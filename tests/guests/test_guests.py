"""The committed guests are what their sources build to, to the byte."""

from __future__ import annotations

import os
import pathlib

import pytest

from guests.build import HERE, RECORD, Target, binutils, build, targets

TARGETS = targets()


@pytest.mark.parametrize("target", TARGETS, ids=[target.output for target in TARGETS])
def test_a_rebuild_is_equal(target: Target, tmp_path: pathlib.Path) -> None:
    with open(RECORD, encoding="utf-8") as stream:
        recorded = stream.read().strip()
    if binutils() != recorded:
        pytest.skip(f"built by {recorded}, here is {binutils() or 'no binutils'}")
    rebuilt = str(tmp_path / "rebuilt")
    build(target, rebuilt)
    with open(rebuilt, "rb") as new, open(target.committed, "rb") as old:
        assert new.read() == old.read(), f"run python tests/guests/build.py {target.source}"


@pytest.mark.parametrize("target", TARGETS, ids=[target.output for target in TARGETS])
def test_it_is_small_and_names_no_path(target: Target) -> None:
    with open(target.committed, "rb") as stream:
        data = stream.read()
    assert len(data) < 16384
    assert os.fsencode(os.path.dirname(os.path.dirname(HERE))) not in data


def test_each_elf_has_a_source() -> None:
    elves = {name for name in os.listdir(HERE) if name.endswith(".elf")}
    assert elves <= {target.output for target in TARGETS}


def test_a_source_without_a_directive_becomes_an_elf64_of_its_name() -> None:
    assert targets(["hello.S"]) == [Target("hello.S", "hello.elf", 64, "guest.ld")]


def test_directives_name_each_output() -> None:
    found = [(target.output, target.bits, target.script) for target in targets(["entry.S"])]
    assert found == [("entry32.elf", 32, "entry.ld"), ("entry64.elf", 64, "entry.ld")]
