"""How much room text takes in a font nobody knows: estimates on the safe side, so that no label is ever clipped."""

from __future__ import annotations

# Advances in ems, at least those of DejaVu Sans, the widest of the fonts that stand behind system-ui.
_NARROW = frozenset(" !\"'(),-./:;I[]fijlrt|")
_BROAD = frozenset("#%&+<=>@MW^mw~\u2026")


def _advance(letter: str) -> float:
    if not letter.isascii() and letter not in _BROAD:
        return 1.3  # full-width letters are 1, emoji up to 1.3
    if letter in _NARROW:
        return 0.46
    return 1.0 if letter in _BROAD else 0.79 if letter.isupper() else 0.64


def text_width(text: str, size: float) -> float:
    """Return pixels that are enough for one line of text in a font of that size in pixels."""
    return size * sum(map(_advance, text))


def shorten(text: str, size: float, room: float) -> str:
    """Return text cut to room pixels, ending in an ellipsis when something is missing."""
    if text_width(text, size) <= room:
        return text
    kept = text
    while kept and text_width(kept + "\u2026", size) > room:
        kept = kept[:-1]
    return kept + "\u2026"


def wrap_lines(text: str, size: float, room: float) -> list[str]:
    """Break text between words into lines of room pixels; a word that is longer than a line is broken too."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        rest = word
        if line and text_width(f"{line} {rest}", size) <= room:
            line = f"{line} {rest}"
            continue
        if line:
            lines.append(line)
        while len(rest) > 1 and text_width(rest, size) > room:
            fits = max(len(shorten(rest, size, room)) - 1, 1)
            lines.append(rest[:fits])
            rest = rest[fits:]
        line = rest
    return [*lines, line] if line else lines
