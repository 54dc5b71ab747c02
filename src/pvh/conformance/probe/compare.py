"""Two observations side by side: what differs."""

from __future__ import annotations

from pvh.conformance.probe.facts import Observation, Value
from pvh.record import dataclass


@dataclass(frozen=True, slots=True)
class Difference:
    """A fact that is not the same: its name, what each has (None: not seen)."""

    name: str
    here: Value | None
    there: Value | None


def differences(here: Observation, there: Observation) -> tuple[Difference, ...]:
    """Return what differs of what both saw, in the order of the first; the memory map as one text."""
    ours, theirs = _with_map(here), _with_map(there)
    return tuple(
        Difference(name, value, theirs[name])
        for name, value in ours.items()
        if name in theirs and theirs[name] != value
    )


def only(here: Observation, there: Observation) -> tuple[str, ...]:
    """Return the names of facts that one saw and the other did not."""
    ours, theirs = _with_map(here), _with_map(there)
    return tuple(sorted(set(ours) - set(theirs)))


def _with_map(seen: Observation) -> dict[str, Value]:
    return seen.facts | ({"memmap": ", ".join(map(str, seen.memmap))} if seen.memmap else {})


def shown(name: str, value: Value | None) -> str:
    """Return a fact's value for people: numbers in hexadecimal."""
    if value is None:
        return "not seen"
    if isinstance(value, int):
        return f"{value:#x}" if value > 9 else str(value)
    return value or ("none" if name == "memmap" else '""')
