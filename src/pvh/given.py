"""What a program hands over, checked: what makes no sense is a UsageError that says what it is, and should be.

Type checkers find most of it before. Programs that nobody checked, and notebooks, meet these errors instead of a
TypeError from deep inside.
"""

from __future__ import annotations

import os

from pvh.errors import UsageError
from pvh.hints import Any

FOR_EVER = 1e9  # seconds: more than 30 years, and less than what the host's clocks can count
_SHOWN = 60  # characters of a value
_SECONDS = "a number of seconds, or None for no limit"


def kind(name: str, value: Any, kinds: type | tuple[type, ...], wanted: str) -> None:
    """Raise UsageError unless a value is of one of some kinds."""
    if not isinstance(value, kinds):
        text = repr(value)
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
        raise UsageError(f"{name} cannot be of type {type(value).__name__}", found=shown, wanted=wanted)


def number(name: str, value: Any, least: int, most: int) -> None:
    """Raise UsageError unless a value is a whole number from least to most."""
    wanted = f"{least} to {most}" if most > least else f"{most}"
    kind(name, value, int, wanted)
    if not least <= value <= most:
        raise UsageError(f"{name} is out of range", found=f"{value}", wanted=wanted)


def seconds(name: str, value: Any) -> float | None:
    """Return a time to wait: None without a limit, 0 if it is over already. Raises UsageError for what is no time."""
    kind(name, value, (int, float, type(None)), _SECONDS)
    if value is None or value > FOR_EVER:
        return None
    if not value <= FOR_EVER:  # a NaN
        raise UsageError(f"{name} is no time", found="nan", wanted=_SECONDS)
    return max(0.0, float(value))


def path(name: str, value: Any) -> str:
    """Return a path as text. Raises UsageError for what is no path."""
    kind(name, value, (str, os.PathLike), "a path")
    text = os.fspath(value)
    kind(name, text, str, "a path as text, as os.fsdecode() makes of bytes")
    return str(text)
