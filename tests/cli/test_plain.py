"""A line that is read without argparse means what argparse says; every other line is left to argparse."""

from __future__ import annotations

import argparse
import contextlib
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvh.cli.plain import Notes, parse
from pvh.cli.run import declare

PLAIN = [
    ["kernel"],
    ["-m", "64M", "kernel", "--vcpus", "2"],
    ["--engine=emulator", "--cmdline=console=hvc0 a=b", "kernel", "-c", "last one counts"],
    ["--module", "a,b c", "--module=d", "--initrd", "i", "kernel"],
    ["--no-patch", "--privileged", "--timeout", "1.5", "kernel", "--copy"],
]
OTHER = [
    [],
    ["kernel", "another"],
    ["--help"],
    ["--mem", "64M", "kernel"],
    ["-m64M", "kernel"],
    ["--memory", "64 metres", "kernel"],
    ["--memory", "kernel"],
    ["--engine", "steam", "kernel"],
    ["--copy=yes", "kernel"],
    ["--unknown", "kernel"],
    ["--cmdline", "-v", "kernel"],
    ["--cmdline", "", "kernel"],
    ["--", "kernel"],
    ["-"],
    ["kernel", "--trace"],
]
MORE = ["-m=1G", "--vcpus=3", "--abi", "v0", "-c=", "--core=", "--no-patch="]
WORDS = sorted({word for line in [*PLAIN, *OTHER, MORE] for word in line})


def notes() -> Notes:
    made = Notes()
    declare(made)
    return made


def by_argparse(line: list[str]) -> dict[str, Any] | None:
    """What argparse makes of a line; None where it exits."""
    parser = argparse.ArgumentParser()
    declare(parser)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            return vars(parser.parse_args(line))
        except SystemExit:
            return None


@pytest.mark.parametrize("line", PLAIN, ids=" ".join)
def test_plain_lines_are_read_as_argparse_reads_them(line: list[str]) -> None:
    assert vars(notes().read(line)) == by_argparse(line)


@pytest.mark.parametrize("line", OTHER, ids=" ".join)
def test_other_lines_are_not_read(line: list[str]) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011  which one does not matter
        notes().read(line)


@given(st.lists(st.sampled_from(WORDS), max_size=6))
def test_no_line_is_read_that_argparse_reads_otherwise(line: list[str]) -> None:
    with contextlib.suppress(Exception):
        assert_same(vars(notes().read(line)), line)


def assert_same(read: dict[str, Any], line: list[str]) -> None:
    if read != by_argparse(line):
        pytest.fail(f"{line}: {read}")  # no Exception, so it is not suppressed


def test_one_reading_leaves_the_next_alone() -> None:
    made = notes()
    first = made.read(["--module", "a", "kernel"])
    assert (len(first.module), made.read(["kernel"]).module) == (1, [])


def test_what_is_not_plain_goes_to_argparse(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(declare, ["--mem", "1G", "kernel"]).memory == 1 << 30
    with pytest.raises(SystemExit) as caught:
        parse(declare, ["--engine", "steam", "kernel"], prog="pvh run")
    assert caught.value.code == 2
    assert "pvh run: error: argument --engine: invalid choice: 'steam'" in capsys.readouterr().err
