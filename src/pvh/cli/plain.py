"""Command lines read without argparse where they are plain: argparse takes 5 ms, and a whole short run 30.

A command declares its options once, in argparse's words, in a function that is given a parser. Here that is Notes,
which read a line of known options, spelt out, each with a good value. Any other line is argparse's: mistakes, --help,
abbreviations. So a line means what argparse says it does, or is not read here. What a project's pvh.toml says is
each option's default (pvh.cli.project). Completion and the manual page read the same notes.
"""

from __future__ import annotations

from types import SimpleNamespace

from pvh.cli.project import chosen_for
from pvh.hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable

_SWITCHES = {"store_true": True, "store_false": False}


class Notes:
    """Stands for an ArgumentParser while options are declared, and reads plain lines."""

    def __init__(self) -> None:
        self.options: dict[str, tuple[str, dict[str, Any]]] = {}
        self.places: list[tuple[str, dict[str, Any]]] = []
        self._values: dict[str, Any] = {}

    def add_argument_group(self, title: str) -> Notes:  # noqa: ARG002  titles are for --help
        """Return what the group's options are declared to."""
        return self

    def add_argument(self, *flags: str, **said: Any) -> None:
        """Note an option, or a place for a word that is none."""
        name: str = said.get("dest") or max(flags, key=len).lstrip("-").replace("-", "_")
        action = said.get("action")
        self._values[name] = not _SWITCHES[action] if action in _SWITCHES else said.get("default")
        if flags[0].startswith("-"):
            self.options |= dict.fromkeys(flags, (name, said))
        else:
            self.places.append((name, said))

    def set_defaults(self, **values: Any) -> None:
        """Set what options have that a line does not name."""
        self._values |= values

    def read(self, argv: list[str]) -> SimpleNamespace:
        """Return what a plain line sets. Raises whatever comes where it is not plain."""
        values = dict(self._values)
        places, words = iter(self.places), iter(argv)
        for word in words:
            if not word.startswith("-"):
                name, said = next(places)
                values[name] = _value(word, **said)
                continue
            flag, equals, text = word.partition("=")
            name, said = self.options[flag]
            action = said.get("action")
            if action in _SWITCHES and not equals:
                values[name] = _SWITCHES[action]
            else:
                value = _value(text if equals else next(words), **said)
                values[name] = [*values[name], value] if action == "append" else value
        if next(places, None):
            raise ValueError("a word is missing")
        return SimpleNamespace(**values)


def _value(text: str, action: str = "store", type: Any = str, choices: Any = None, **_: Any) -> Any:  # noqa: A002
    """Return an option's value. To argparse, a dash may make another option of it, and nothing no value."""
    value = type(text)
    if action in _SWITCHES or not text or text.startswith("-") or (choices and value not in choices):
        raise ValueError(text)
    return value


def parse(declare: Callable[[ArgumentParser | Notes], None], argv: list[str], **about: Any) -> Any:
    """Return what a line sets, each option by its name. Exits as argparse does: on mistakes, and after --help.

    about  what an ArgumentParser is told of the command
    """
    notes = Notes()
    declare(notes)
    chosen = chosen_for(notes)
    notes.set_defaults(**chosen)
    try:
        return notes.read(argv)
    except Exception:  # noqa: BLE001  argparse says what it is, and how
        from pvh.cli.help import parser as parser_for

        parser = parser_for(**about)
        declare(parser)
        parser.set_defaults(**chosen)
        return parser.parse_args(argv)
