"""The tests behind each clause: those that show that it is given, or that a kernel is caught breaking it."""

from __future__ import annotations

from conformance.wrong import WRONG

_ENTRY = ("tests/entry/test_entry_matrix.py",)
_FOUND = "tests/conformance/test_check.py::test_what_it_relies_on_is_found"
_PROFILES = "tests/conformance/test_profiles.py"

_GIVEN: dict[str, tuple[str, ...]] = {
    "entry.eip": _ENTRY,
    "entry.mode": _ENTRY,
    "entry.ebx": _ENTRY,
    "eflags": _ENTRY,
    "cr0": _ENTRY,
    "cr4": _ENTRY,
    "segments.flat": _ENTRY,
    "tr": _ENTRY,
    "start_info.magic": _ENTRY,
    "memory.loaded": _ENTRY,
    "memory.bss-zero": (f"{_PROFILES}::test_bss_is_zero_where_ram_is_not",),
    "start_info.below-4g": (f"{_PROFILES}::test_every_profile_is_by_the_abi",),
    "reloc": (f"{_PROFILES}::test_a_kernel_that_can_be_moved_is_moved_as_its_note_allows",),
}

BEHIND: dict[str, tuple[str, ...]] = {
    name: (*_GIVEN.get(name, ()), *((f"{_FOUND}[{name}]",) if name in {wrong.clause for wrong in WRONG} else ()))
    for name in {*_GIVEN, *(wrong.clause for wrong in WRONG)}
}
