"""`--help` of every command: a screen, in the terminal's width, with examples."""

from __future__ import annotations

import pytest

from pvh.cli import COMMANDS, main

_LINES = 60


def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, columns: int) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_screen_with_examples(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    lines = told(monkeypatch, capsys, command, 80)
    assert len(lines) <= _LINES
    assert [line for line in lines if len(line) > 80] == []
    assert lines[0].startswith(f"usage: pvh {command} [OPTION ...]")
    examples = lines[lines.index("examples:") + 1 :]
    assert f"  pvh {command}" in examples[0]


@pytest.mark.parametrize("columns", [60, 100, 132])
def test_prose_takes_the_width_and_examples_stand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    lines = told(monkeypatch, capsys, "run", columns)
    assert "  pvh run --engine emulator --timeout 60 --trace exits.jsonl kernel.elf" in lines
    prose = [line for line in lines if "terminal every key" in line or "Ctrl-C asks" in line]
    assert prose
    assert all(len(line) <= columns for line in prose)
    assert max(map(len, prose)) > columns * 0.7


def test_the_list_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80


def test_a_mistake_is_told_with_one_line_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--engine", "steam", "kernel"])
    usage, error = capsys.readouterr().err.splitlines()
    assert usage == "usage: pvh run [OPTION ...] KERNEL"
    assert "steam" in error


def test_help_of_a_command_is_that_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["help", "run"])
    asked = capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    assert asked == capsys.readouterr().out
    assert main(["help", "nothing"]) == 2
    assert "no command 'nothing'" in capsys.readouterr().err


@pytest.mark.parametrize("columns", [100, 80, 60, 40])
def test_the_help_of_all_fits(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= columns
    for status in (0, 2, 10, 11, 12, 13, 14, 15, 20, 21, 130):
        assert f"  {status:<3}  " in said
