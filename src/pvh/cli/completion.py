"""`pvh completion`: what has a shell complete pvh's commands, options and their values."""

from __future__ import annotations

from importlib import import_module

from pvh.cli import COMMANDS
from pvh.cli.plain import Notes, parse
from pvh.hints import TYPE_CHECKING
from pvh.record import dataclass

if TYPE_CHECKING:
    from argparse import ArgumentParser

ABOUT = {
    "description": "Print what has a shell complete pvh's commands, options and values.",
    "epilog": """examples:
  pvh completion bash >~/.local/share/bash-completion/completions/pvh
  pvh completion zsh >~/.zfunc/_pvh    # with ~/.zfunc in fpath, before compinit
  pvh completion fish >~/.config/fish/completions/pvh.fish""",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """An option, or a place for a word: its flags (none: a place), what it is for, the values it takes.

    values  words to choose from; None: a file; empty: something else, or (takes being False) nothing at all
    """

    flags: tuple[str, ...]
    help: str
    takes: bool
    values: tuple[str, ...] | None


def choices(command: str) -> tuple[Choice, ...]:
    """Return what a command takes, places last."""
    notes = Notes()
    import_module(f"pvh.cli.{command}").declare(notes)
    found: dict[str, tuple[list[str], dict[str, object]]] = {}
    for flag, (name, said) in notes.options.items():
        found.setdefault(name, ([], said))[0].append(flag)
    places = [((), said) for _, said in notes.places]
    return tuple(_choice(tuple(flags), said) for flags, said in (*found.values(), *places))


def _choice(flags: tuple[str, ...], said: dict[str, object]) -> Choice:
    takes = said.get("action") not in ("store_true", "store_false")
    metavar, named = str(said.get("metavar", "")), said.get("choices")
    if metavar in ("VMM", "OTHER") and named is None:
        from pvh.conformance.probe.own import OWN
        from pvh.conformance.probe.vmm import VMMS

        named = (*VMMS, *OWN)
    if "--profile" in flags:
        from pvh.conformance.profiles import NAMES

        named = NAMES
    values = tuple(named) if isinstance(named, tuple) else None if {"FILE", "KERNEL"} & {*metavar.split("[")} else ()
    return Choice(flags, str(said.get("help", "")), takes, values)


def bash() -> str:
    """Return the script for bash."""
    lines: list[str] = []
    for command in COMMANDS:
        all_ = choices(command)
        flags = " ".join(flag for choice in all_ for flag in choice.flags)
        lines.append(f"    {command}) options='{flags} --help'")
        places = [choice.values for choice in all_ if not choice.flags]
        words = " ".join(value for values in places for value in values or ())
        lines.append(f"      words='{words}' files={'yes' if None in places else ''}")
        lines.append('      case "$previous" in')
        for choice in all_:
            if choice.takes and choice.flags and choice.values is not None:
                reply = f"COMPREPLY=($(compgen -W '{' '.join(choice.values)}' -- \"$current\"))"
                lines.append(f"        {'|'.join(choice.flags)}) {reply}; return ;;")
            elif choice.takes and choice.flags:
                lines.append(f'        {"|".join(choice.flags)}) COMPREPLY=($(compgen -f -- "$current")); return ;;')
        lines += ["      esac ;;"]
    return _BASH.replace("@commands@", " ".join(COMMANDS)).replace("@cases@", "\n".join(lines))


_BASH = """# bash completion for pvh; made by `pvh completion bash`
_pvh() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} options= words= files=
  COMPREPLY=()
  # In --option=value the sign is a word of its own.
  if [ "$current" = = ]; then
    current=
  elif [ "$previous" = = ]; then
    previous=${COMP_WORDS[COMP_CWORD-2]}
  fi
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W '@commands@ --help --version' -- "$current"))
    return
  fi
  case ${COMP_WORDS[1]} in
@cases@
    help) words='@commands@' ;;
  esac
  # A closed choice stands first; files are for what follows it.
  if [ -n "$words" ] && [ "$COMP_CWORD" -eq 2 ]; then
    files=
  fi
  case $current in
    -*) COMPREPLY=($(compgen -W "$options" -- "$current")) ;;
    *) COMPREPLY=($(compgen -W "$words" -- "$current") ${files:+$(compgen -f -- "$current")}) ;;
  esac
}
complete -o filenames -F _pvh pvh
"""


def zsh() -> str:
    """Return the script for zsh."""
    lines: list[str] = []
    for command in COMMANDS:
        specs: list[str] = []
        for choice in choices(command):
            action = f"({' '.join(choice.values)})" if choice.values else "_files" if choice.values is None else " "
            value = f":value:{action}" if choice.takes else ""
            text = choice.help.translate(_ZSH)
            specs += [f"'{flag}[{text}]{value}'" for flag in choice.flags]
            specs += [f"'*:{text}:{action}'"] if not choice.flags and choice.values is None else []
            specs += [f"'1:{text}:{action}'"] if not choice.flags and choice.values else []
        lines.append(f"    {command}) _arguments {' '.join(specs)} ;;")
    commands = " ".join(f"'{name}:{text.translate(_ZSH)}'" for name, text in COMMANDS.items())
    return _ZSH_SCRIPT.replace("@commands@", commands).replace("@cases@", "\n".join(lines))


_ZSH = str.maketrans({"'": "'\\''", "[": "\\[", "]": "\\]", ":": "\\:", "`": "\\`", "$": "\\$"})
_ZSH_SCRIPT = """#compdef pvh
# zsh completion for pvh; made by `pvh completion zsh`
_pvh() {
  local -a commands
  commands=(@commands@)
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
@cases@
    help) _describe command commands ;;
  esac
}
compdef _pvh pvh
"""


def fish() -> str:
    """Return the script for fish."""
    lines = ["# fish completion for pvh; made by `pvh completion fish`", "complete -c pvh -f"]
    for command, text in COMMANDS.items():
        lines.append(f"complete -c pvh -n __fish_use_subcommand -a {command} -d {_fish(text)}")
        within = f"complete -c pvh -n '__fish_seen_subcommand_from {command}'"
        places = [choice for choice in choices(command) if not choice.flags]
        for choice in choices(command):
            value = " -r -F" if choice.values is None else f" -x -a '{' '.join(choice.values)}'"
            words = (f"-{'l' if flag.startswith('--') else 's'} {flag.lstrip('-')}" for flag in choice.flags)
            if choice.flags:
                lines.append(f"{within} {' '.join(words)}{value if choice.takes else ''} -d {_fish(choice.help)}")
            elif choice.values is None:
                first = next((" ".join(place.values) for place in places if place.values), "")
                behind = f"; and __fish_seen_subcommand_from {first}" if first else ""
                lines.append(f"{within[:-1]}{behind}' -F")
            else:
                lines.append(f"{within} -a '{' '.join(choice.values)}'")
    lines.append(f"complete -c pvh -n '__fish_seen_subcommand_from help' -a '{' '.join(COMMANDS)}'")
    return "\n".join(lines) + "\n"


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}


def declare(parser: ArgumentParser | Notes) -> None:
    """Declare the options."""
    parser.add_argument("shell", metavar="SHELL", choices=tuple(SHELLS), help=", ".join(SHELLS))


def main(argv: list[str]) -> int:
    """Print a shell's script. Returns the exit status."""
    print(SHELLS[parse(declare, argv, prog="pvh completion", **ABOUT).shell](), end="")
    return 0
