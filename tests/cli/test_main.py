"""The command line: one sentence that says what is wrong, the right status, never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import pvh
from pvh.cli import COMMANDS, main
from pvh.errors import DoesNotFit

HELLO = str(Path(__file__).resolve().parent.parent / "guests" / "hello.elf")
Capture = pytest.CaptureFixture[str]


def sentence(capsys: Capture) -> str:
    """Return what was said on standard error, which is one line."""
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith("pvh: ")
    assert streams.err.count("\n") == 1
    return streams.err.removeprefix("pvh: ").rstrip()


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_lists_every_command_and_status(capsys: Capture, word: str) -> None:
    assert main([word]) == 0
    told = capsys.readouterr().out
    assert all(f"\n  {name} " in told for name in COMMANDS)
    assert all(f"  {status} " in told for status in (0, 2, 10, 11, 12, 13, 14, 20, 21, 130))


def test_nothing_at_all_is_wrong_usage_and_helps(capsys: Capture) -> None:
    assert main([]) == 2
    assert "usage: pvh COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["--version", "-V"])
def test_version(capsys: Capture, word: str) -> None:
    assert main([word]) == 0
    assert capsys.readouterr().out == f"pvh {pvh.__version__}\n"


@pytest.mark.parametrize("word", ["boot", "RUN", "--wrong", "", "cli", "../run"])
def test_an_unknown_command_is_named_with_those_there_are(capsys: Capture, word: str) -> None:
    assert main([word]) == 2
    said = sentence(capsys)
    assert repr(word) in said
    assert "inspect" in said


@pytest.mark.parametrize("command", ["run", "plan", "inspect"])
class TestFiles:
    def test_a_missing_file(self, capsys: Capture, command: str) -> None:
        assert main([command, "/nonexistent/vmlinuz"]) == 2
        assert sentence(capsys).startswith("/nonexistent/vmlinuz: cannot read it: no such file")

    def test_a_directory(self, capsys: Capture, command: str, tmp_path: Path) -> None:
        assert main([command, str(tmp_path)]) == 2
        assert "is a directory" in sentence(capsys)


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"hello\n", b"\0" * 4096, b"\x1f\x8b\x08\0"])
def test_what_is_no_kernel_is_refused(capsys: Capture, command: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert main([command, str(path)]) == 20
    assert sentence(capsys).startswith(f"{path}: ")


def test_a_refusal_as_json_is_the_errors_fields(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello\n")
    assert main(["plan", "--json", str(tmp_path / "file")]) == 20
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["path"]) == ("not-a-kernel", str(tmp_path / "file"))


@pytest.mark.parametrize(
    "options",
    [
        ["--memory", "lots"],
        ["--memory", "-1M"],
        ["--memory", "1..5G"],
        ["--vcpus", "two"],
        ["--abi", "v2"],
        ["--platform", "pc"],
        ["--engine", "qemu"],
        ["--wrong"],
        [],
    ],
)
def test_options_that_are_none_are_wrong_usage(capsys: Capture, options: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["plan", *options] + ([HELLO] if options else []))
    assert left.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("pvh plan: error: ")


@pytest.mark.parametrize(
    "options",
    [["--memory", "0"], ["--memory", "4097"], ["--vcpus", "0"], ["--vcpus", "129"], ["--vcpus", "-1"]],
)
def test_values_that_make_no_guest_are_said_in_a_sentence(capsys: Capture, options: list[str]) -> None:
    assert main(["plan", *options, HELLO]) in (2, 20)
    sentence(capsys)


def test_ctrl_c_is_130(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_argv: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("pvh.cli.plan.main", interrupt)
    assert main(["plan", HELLO]) == 130
    assert sentence(capsys) == "interrupted"


@pytest.mark.parametrize(
    ("error", "said"),
    [(OSError(5, "Input/output error"), "Input/output error"), (MemoryError(), "out of memory")],
)
def test_what_the_host_fails_at_is_14(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(_argv: list[str]) -> int:
        raise error

    monkeypatch.setattr("pvh.cli.plan.main", fail)
    assert main(["plan", HELLO]) == 14
    assert said in sentence(capsys)


def test_errors_have_their_own_status(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_argv: list[str]) -> int:
        raise DoesNotFit("too big", path="k", offset=16, found="9", wanted="at most 8", hint="make it smaller")

    monkeypatch.setattr("pvh.cli.plan.main", refuse)
    assert main(["plan", HELLO]) == 20
    assert sentence(capsys) == "k: too big at offset 0x10 (found 9; wanted at most 8) - make it smaller"


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    shell = f"{sys.executable} -m pvh plan {HELLO} --json | head -c 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.strip("{\n") in ("0", "141")
