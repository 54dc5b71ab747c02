"""Sizes for people."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size_text(size: int) -> str:
    """Return bytes in the largest unit that leaves at least 1; a decimal point tells that it is rounded."""
    power = min(max(size.bit_length() - 1, 0) // 10, len(_UNITS) - 1)
    whole, rest = divmod(size, 1 << 10 * power)
    return f"{size / (1 << 10 * power):.1f} {_UNITS[power]}" if rest else f"{whole} {_UNITS[power]}"


def mebibytes_up(size: int) -> int:
    """Return the least whole number of MiB that holds size bytes."""
    return -(-size >> 20)


def printable(text: str) -> str:
    """Return text with every character that a terminal or XML could trip over replaced."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
