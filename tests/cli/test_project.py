"""A project's defaults: pvh.toml and [tool.pvh]."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pvh.cli import main
from pvh.cli.plain import Notes
from pvh.cli.project import KEYS, chosen
from pvh.cli.run import declare

HELLO = str(Path(__file__).parents[1] / "guests" / "hello.elf")
SAYS = 'memory = "64M"\nvcpus = 2\ncmdline = "from the project"\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a project's folder, two below its file."""
    monkeypatch.delenv("PVH_CONFIG", raising=False)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    return tmp_path


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, bool]:
    """Return what `pvh plan` makes of it: RAM, and whether there is the project's command line."""
    assert main(["plan", HELLO, "--json", *words]) == 0
    out = capsys.readouterr().out
    return json.loads(out)["ram"], "from the project" in out


@pytest.mark.parametrize(("name", "head"), [("pvh.toml", ""), ("pyproject.toml", "[tool.x]\ny = 1\n[tool.pvh]\n")])
def test_a_file_above_sets_defaults(name: str, head: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / name).write_text(head + SAYS)
    assert planned(capsys) == (64 << 20, True)
    assert planned(capsys, "-m", "32M") == (32 << 20, True), "what is typed goes before"
    assert planned(capsys, "--memory=32M", "--cmdl", "typed") == (32 << 20, False), "also where argparse reads it"


def test_the_nearest_file_counts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pvh.toml").write_text(SAYS)
    (folder / "a" / "pyproject.toml").write_text("[tool.other]\n")
    assert planned(capsys)[0] == 64 << 20
    (folder / "a" / "pvh.toml").write_text('memory = "48M"\n')
    assert planned(capsys) == (48 << 20, False)


def test_the_environment_names_another_file_or_none(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "pvh.toml").write_text(SAYS)
    monkeypatch.setenv("PVH_CONFIG", "")
    assert planned(capsys) == (512 << 20, False)
    (folder / "other.toml").write_text('memory = "16M"\n')
    monkeypatch.setenv("PVH_CONFIG", str(folder / "other.toml"))
    assert planned(capsys) == (16 << 20, False)


def test_a_path_is_the_files_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pvh.toml").write_text('initrd = "my.cpio"\n')
    (folder / "my.cpio").write_bytes(b"x" * 5000)
    assert main(["plan", HELLO, "--json"]) == 0
    assert "my.cpio" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("memory = ", "no TOML"),
        ("trace = 'x'", "sets 'trace', which is no option with a default"),
        ("[run]\nmemory = '64M'", "has a section [run]: defaults are for all commands alike"),
        ("engine = 'xen'", "engine = 'xen' is none of auto, kvm, emulator"),
        ("memory = 'much'", "memory: 'much' is no size"),
        ("memory = 64", "memory = 64 is in bytes, and no multiple of 4096"),
        ("memory = [1]", "memory = [1] is no value"),
        ("copy = 'yes'", "copy = 'yes' is neither true nor false"),
        ("vcpus = true", "vcpus = True is no value"),
    ],
)
def test_what_is_amiss_is_said_with_the_file(
    text: str, why: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "pvh.toml").write_text(text)
    assert main(["run", HELLO]) == 2
    said = capsys.readouterr().err
    assert str(folder / "pvh.toml") in said
    assert why in said


def test_doctor_shows_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pvh.toml").write_text(SAYS)
    main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["project"] == str(folder / "pvh.toml")
    assert report["defaults"] == {"memory": "64M", "vcpus": 2, "cmdline": "from the project"}


def test_each_key_is_an_option_of_run() -> None:
    notes = Notes()
    declare(notes)
    assert {f"--{key}" for key in KEYS} <= set(notes.options) | {"--clock"}


def test_a_folder_that_is_gone_sets_nothing(folder: Path) -> None:
    (folder / "a" / "b").rmdir()
    assert chosen() == (None, {})
