"""What a case of the corpus is, and the short ways to write its file."""

from __future__ import annotations

from dataclasses import dataclass, field

from elfwriter import Load, entry_note, kernel, note, u32


@dataclass(frozen=True)
class Case:
    """A file, and the verdict on it.

    problems, warnings  codes in order
    facts               attributes of the Kernel record, by dotted name
    """

    id: str
    data: bytes = field(repr=False)
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: dict[str, object] = field(default_factory=dict[str, object])


def text(number: int, value: str) -> bytes:
    return note(number, value.encode() + b"\0")


def linked(*loads: Load, entry: int = 0x100000, more: bytes = b"") -> bytes:
    """Return a kernel of these segments that has an entry."""
    return kernel(entry_note(entry), more, loads=loads)


def featured(value: str) -> bytes:
    return kernel(entry_note(), text(10, value))


DRAFT_C_NOTES = (
    text(6, "FreeBSD"),
    text(7, "1100000"),
    text(5, "xen-3.0"),
    entry_note(),
    text(10, "writable_descriptor_tables|auto_translated_physmap"),
    note(17, u32(1 << 0 | 1 << 2 | 1 << 8)),
    text(8, "generic"),
)

DRAFT_C_FEATURES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 8
