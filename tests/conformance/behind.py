"""The tests behind each clause: those that show that it is given, or that a kernel is caught breaking it."""

from __future__ import annotations

_ENTRY = ("tests/entry/test_entry_matrix.py",)

BEHIND: dict[str, tuple[str, ...]] = {
    "entry.eip": _ENTRY,
    "entry.mode": _ENTRY,
    "entry.ebx": _ENTRY,
    "eflags": _ENTRY,
    "cr0": _ENTRY,
    "cr4": _ENTRY,
    "segments.flat": _ENTRY,
    "tr": _ENTRY,
    "start_info.magic": _ENTRY,
}
