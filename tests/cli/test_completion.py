"""Completion, asked of the shells themselves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pvh.cli import COMMANDS, main
from pvh.cli.completion import SHELLS, choices

ASK_BASH = """source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pvh; printf '%s\\n' "${COMPREPLY[@]}"
"""
ASK_FISH = 'source $argv[1]; complete -C "$argv[2]"'
# A terminal of zsh's own, in which it is told to list: what compadd is given is printed.
ASK_ZSH = """
fpath=("$1:h" $fpath); autoload -Uz compinit; compinit -u -D
zmodload zsh/zpty
zpty asked zsh -f -i
zpty -w asked "PS1= ; fpath=($1:h \\$fpath); autoload -Uz compinit; compinit -u -D"
zpty -w asked "zstyle ':completion:*' list-prompt ''; LISTMAX=9999; echo re''ady"
while zpty -r asked line; do [[ $line = *ready* ]] && break; done
zpty -n -w asked "$2"$'\\t\\t'
sleep 1
zpty -w asked $'\\x15'"echo do''ne"
while zpty -r asked line; do print -r -- $line; [[ $line = *done* ]] && break; done
"""


def script(shell: str, folder: Path) -> Path:
    path = folder / "_pvh"
    path.write_text(SHELLS[shell](), encoding="utf-8")
    return path


def ask(shell: str, folder: Path, *words: str) -> list[str]:
    """Return what a shell offers for the last of some words."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    path = str(script(shell, folder))
    line = [shell, "-c", ASK_BASH, "bash", path, *words] if shell == "bash" else [
        *(["fish", "--no-config", "-c", ASK_FISH, path] if shell == "fish" else ["zsh", "-fc", ASK_ZSH, "zsh", path]),
        " ".join(words),
    ]  # fmt: skip
    done = subprocess.run(line, capture_output=True, text=True, timeout=30, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return [offer.partition("\t")[0].rstrip() for offer in done.stdout.splitlines()]


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_commands_options_and_values(shell: str, tmp_path: Path) -> None:
    assert set(ask(shell, tmp_path, "pvh", "")) >= set(COMMANDS)
    assert ask(shell, tmp_path, "pvh", "ins") == ["inspect"]
    assert "--engine" in ask(shell, tmp_path, "pvh", "run", "--eng")
    assert ask(shell, tmp_path, "pvh", "run", "--engine", "em") == ["emulator"]
    assert set(ask(shell, tmp_path, "pvh", "export", "")) >= {"xl", "qemu"}
    (tmp_path / "vmlinuz-6.1").touch()
    assert "vmlinuz-6.1" in ask(shell, tmp_path, "pvh", "run", "vml")
    assert "vmlinuz-6.1" in ask(shell, tmp_path, "pvh", "run", "--initrd", "vml")
    assert ask(shell, tmp_path, "pvh", "probe", "qemu-p") == ["qemu-pc"]
    assert ask(shell, tmp_path, "pvh", "probe", "--against", "qemu-q") == ["qemu-q35"]
    assert ask(shell, tmp_path, "pvh", "help", "ru") == ["run"]
    (tmp_path / "qfile").touch()
    assert ask(shell, tmp_path, "pvh", "export", "q") == ["qemu"]
    assert ask(shell, tmp_path, "pvh", "export", "qemu", "qf") == ["qfile"]
    assert ask(shell, tmp_path, "pvh", "check", "--profile", "na") == ["nasty"]
    (tmp_path / "kvm2.py").touch()
    assert ask(shell, tmp_path, "pvh", "completion", "k") == [""] * (shell == "bash"), "a file is no shell"


@pytest.mark.parametrize(("words", "offers"), [(("=", "k"), ["kvm"]), (("=",), ["auto", "kvm", "emulator"])])
def test_bash_splits_at_the_equals_sign(words: tuple[str, ...], offers: list[str], tmp_path: Path) -> None:
    (tmp_path / "kvm2.py").touch()
    assert sorted(ask("bash", tmp_path, "pvh", "run", "--engine", *words)) == sorted(offers)


def test_zsh_lists_options_with_their_help(tmp_path: Path) -> None:
    said = "\n".join(ask("zsh", tmp_path, "pvh", "run", "--"))
    assert "--engine" in said
    assert "what executes the guest" in said


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_one_of_that_shell(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert capsys.readouterr().out == SHELLS[shell]()
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    subprocess.run([shell, "-n", script(shell, tmp_path)], check=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_tells_what_it_takes(command: str) -> None:
    """So that completion, the manual page and a project's defaults know it."""
    assert all(choice.help for choice in choices(command))
