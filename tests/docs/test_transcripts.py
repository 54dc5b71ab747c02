"""Every command and program of the documentation does what its page shows, or says why nothing runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import pvh
from docs.transcript import blocks, bodies, lines, matches, play, steps, typed, write
from pvh.cli import main
from pvh.demo import demo_initramfs

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
TEXT = {page.stem: page.read_text(encoding="utf-8") for page in PAGES}
ELSEWHERE = ("README", "api")  # tests/docs/test_readme.py and test_api.py run their Python
NEEDS = ("gcc", "as", "ld", "rustc", "gdb", "qemu-system-x86_64")
BUILDING = ("as", "gcc", "ld", "rustc")
STATUS = {"pvh probe qemu-microvm": 15}  # QEMU breaks a promise; the others end with 0
SOUND = {
    "tutorial": (["kernel"], ["map"]),
    "rust": (["kernel"],),
    "ci": (["kernel"],),
    "gdb": (["kernel"],),
    "smp": (["kernel", "--vcpus", "2"],),
}


def having(test: Callable[[str], object]) -> list[str]:
    return [stem for stem, text in TEXT.items() if test(text)]


def need(commands: str) -> None:
    """Skip a test that types what is not here."""
    absent = [tool for tool in NEEDS if re.search(rf"^{tool}\b", commands, re.MULTILINE) and not shutil.which(tool)]
    if absent:
        pytest.skip(f"no {', '.join(absent)} here")


def own_folder(folder: Path, commands: str, specimen: Callable[[str], Path]) -> None:
    """Put what commands take for granted into a folder."""
    shutil.copy(pvh.demo_path(), folder / "kernel.elf")
    if "vmlinuz" in commands:
        (folder / "vmlinuz").symlink_to(specimen("vmlinuz-cloud-6.1"))
        (folder / "initrd").write_bytes(demo_initramfs())
    if "--exec" in commands:
        (folder / "busybox").symlink_to(specimen("busybox"))


@pytest.mark.parametrize("page", having(lambda text: any(steps(text))))
def test_a_session_goes_as_the_page_shows(page: str, tmp_path: Path, specimen: Callable[[str], Path]) -> None:
    commands = "\n".join(step.command for step in steps(TEXT[page]))
    need(commands)
    own_folder(tmp_path, commands, specimen)
    play(TEXT[page], tmp_path)


@pytest.mark.parametrize("page", having(lambda text: any(lines(text))))
def test_a_command_does_its_work(
    page: str, tmp_path: Path, specimen: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = list(lines(TEXT[page]))
    own_folder(tmp_path, "\n".join(commands), specimen)
    monkeypatch.setenv("PVH_CACHE", str(tmp_path / "boot cache"))
    for command in commands:
        if ("kvm" in command or "--differential" in command) and not os.access("/dev/kvm", os.R_OK | os.W_OK):
            continue
        if "qemu-" in command and not shutil.which("qemu-system-x86_64"):
            continue
        # Where the README says that a host's busybox is needed, it is that of Debian's package.
        status, said = typed(command.replace("--exec", "--busybox busybox --exec"), tmp_path)
        assert status == STATUS.get(command, 0), f"$ {command}\n{said}"


@pytest.mark.parametrize("page", having(lambda text: bool(bodies(text, "python"))))
def test_a_program_runs(page: str) -> None:
    if page in ELSEWHERE:
        return
    for body in bodies(TEXT[page], "python"):
        exec(compile(body, page, "exec"), {})


@pytest.mark.parametrize("page", TEXT)
def test_what_nothing_runs_says_why(page: str) -> None:
    """What is neither a session, commands, a program nor a file of a session has its reason before it."""
    text = TEXT[page]
    assert 2 * len(list(blocks(text))) == len(re.findall(r"^ *```", text, re.MULTILINE)), "a fence of an unknown form"
    unsaid = [
        block
        for block in blocks(text)
        if not block.why and block.language not in ("console", "sh", "python") and not (block.name and any(steps(text)))
    ]
    assert unsaid == []
    indented = re.findall(
        r"^ {4,}\$? ?(?:pvh|make|pip|pytest|python) .*", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE
    )
    assert indented == [], "a command outside of fences"


@pytest.mark.parametrize(("page", "kernel"), [(page, words) for page in SOUND for words in SOUND[page]])
def test_a_kernel_that_is_shown_as_sound_is_sound(
    page: str, kernel: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of all that pvh check can say, only that compilers save registers whose value nobody promised."""
    building = [step.command for step in steps(TEXT[page]) if step.command.split()[0] in BUILDING]
    need("\n".join(building))
    write(TEXT[page], tmp_path)
    for command in building:
        typed(command, tmp_path)
    status = main(["check", "--json", str(tmp_path / kernel[0]), *kernel[1:]])
    found = json.loads(capsys.readouterr().out)
    assert status == 0
    said = [finding["what"] for clause in found["clauses"] for finding in clause["findings"]]
    assert [what for what in said if "is saved before the kernel has written it" not in what] == []


def test_dots_stand_for_what_may_differ() -> None:
    assert matches(("a", "...", "d ... f"), ("a", "b", "c", "d e f"))
    assert matches(("...",), ())
    assert not matches(("a",), ("a", "b"))
    assert not matches(("a", "b"), ("a",))
    assert not matches(("a...c",), ("a b",))


def test_what_is_not_so_is_found(tmp_path: Path) -> None:
    page = "```console\n$ echo one\none\n$ false\n$ echo $?\n0\n```\n"
    with pytest.raises(AssertionError, match="wanted"):
        play(page, tmp_path)
    play(page.replace("\n0\n", "\n1\n"), tmp_path)


def test_a_reason_is_read_and_its_commands_are_not_run() -> None:
    page = "<!-- not run: it needs a lake -->\n```sh\nswim   # far\n```\n\n```sh\nwalk   # home\n```\n"
    assert [block.why for block in blocks(page)] == ["it needs a lake", ""]
    assert list(lines(page)) == ["walk"]
