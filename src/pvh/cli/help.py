"""How `--help` looks: one screen, in the terminal's width. Imported for whoever asks, and for mistakes."""

from __future__ import annotations

import sys
import textwrap
from argparse import Action, ArgumentParser, HelpFormatter
from collections.abc import Iterable, Iterator
from itertools import groupby

from pvh.hints import Any

_COLUMN = 31  # where an option's text begins: behind the longest option


class Help(HelpFormatter):
    """Lines that are indented stand as they are; others are filled. The list of options is told once, below."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=_COLUMN)

    def add_usage(
        self, usage: str | None, actions: Iterable[Action], groups: Iterable[Any], prefix: str | None = None
    ) -> None:
        """Take the usage line: places for words, and one word for all options."""
        places = [action for action in actions if not action.option_strings]
        options = Action((), "options", nargs="*", metavar="OPTION")
        super().add_usage(usage, [options, *places], groups, prefix)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in _filled(text, width - len(indent)))


def _filled(text: str, width: int) -> Iterator[str]:
    for is_prose, found in groupby(text.splitlines(), lambda line: bool(line) and not line.startswith(" ")):
        lines = list(found)
        yield from textwrap.wrap(" ".join(lines), width) if is_prose else lines


class _Parser(ArgumentParser):
    def _print_message(self, message: str, file: Any = None) -> None:
        """Print --help so that a full disk is told of: argparse says nothing, and has been successful."""
        if file is sys.stdout:
            print(message, end="", flush=True)
        else:
            super()._print_message(message, file)


def parser(**about: Any) -> ArgumentParser:
    """Return a parser with such a --help."""
    return _Parser(formatter_class=Help, **about)
