"""Sizes and spans of time as people write them: 512M, 1.5GiB; 90, 500ms, 2m."""

from __future__ import annotations

_SIZES = {"": 0, "b": 0} | {
    letter + rest: shift for letter, shift in (("k", 10), ("m", 20), ("g", 30), ("t", 40)) for rest in ("", "b", "ib")
}
_SPANS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

LONGEST = 1e9  # seconds, some thirty years; a lock cannot be waited for much longer


def parse_size(text: str) -> int:
    """Return bytes for 512M, 1.5GiB, 65536; units are powers of two. Raises ValueError for what is no whole number."""
    number, unit = _split(text.strip().lower())
    whole, _, part = number.partition(".")
    shift = _SIZES.get(unit)
    if shift is None or not _digits(whole) or not (_digits(part) or number == whole):
        raise ValueError(f"{text!r} is no size: write 512M or 2GiB")
    size, rest = divmod(int(whole + part) << shift, int("1" + "0" * len(part)))
    if rest:
        raise ValueError(f"{text!r} is no whole number of bytes: write 512M or 2GiB")
    return size


def parse_seconds(text: str) -> float:
    """Return seconds for 90, 1.5, 500ms, 2m, 1h. Raises ValueError for what is no span from 0 to LONGEST."""
    number, unit = _split(text.strip().lower())
    try:
        seconds = float(number) * _SPANS[unit]
    except (ValueError, KeyError):
        seconds = -1.0
    if not 0 <= seconds <= LONGEST:
        raise ValueError(f"{text!r} is no span of time up to {LONGEST:.0f} seconds: write 90, 500ms or 2m")
    return seconds


def _split(word: str) -> tuple[str, str]:
    number = word.rstrip("bghikmst")
    return number.rstrip(), word[len(number) :]


def _digits(word: str) -> bool:
    return word.isascii() and word.isdigit()
