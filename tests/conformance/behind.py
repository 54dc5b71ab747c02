"""The tests behind each clause: those that show that it is given, or that a kernel is caught breaking it."""

from __future__ import annotations

from conformance.kernels import cases
from conformance.relies import WRONG
from conformance.test_monitor_wrong import BEHAVING
from pvh.conformance.clauses import of_kernel

_ENTRY = ("tests/entry/test_entry_matrix.py",)
_FOUND = "tests/conformance/test_check.py::test_what_it_relies_on_is_found"
_WATCHED = "tests/conformance/test_monitor_wrong.py"
_SEEN = f"{_WATCHED}::test_a_wrong_kernel_is_found_at_the_instruction_that_breaks_the_clause"
_SLIPS = f"{_WATCHED}::test_a_kernel_that_takes_one_guest_for_all_goes_wrong_in_another"
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
    "mtrr": _ENTRY,
    "apic": ("tests/oracle/test_oracle.py::test_local_apics_start_as_xens", "tests/test_board.py::TestLocalApic"),
    "start_info.magic": _ENTRY,
    "memory.loaded": _ENTRY,
    "memory.bss-zero": (f"{_PROFILES}::test_bss_is_zero_where_ram_is_not",),
    "start_info.below-4g": (f"{_PROFILES}::test_every_profile_is_by_the_abi",),
    "reloc": (f"{_PROFILES}::test_a_kernel_that_can_be_moved_is_moved_as_its_note_allows",),
}

_FOUND_IN = {wrong.clause: (f"{_FOUND}[{wrong.clause}]",) for wrong in WRONG}
_LINTS = "tests/conformance/test_lints.py::test_what_is_odd_is_found"
_CHECKED = "tests/conformance/test_check_wrong.py::test_a_wrong_kernel_is_found_at_its_instruction"
_KERNELS = {
    clause.id: (_LINTS,) if clause.part == "file" else tuple(
        test
        for case in cases() if case.culprit and case.clause == clause.id
        for test in (f"{_SLIPS if case.name in BEHAVING else _SEEN}[{case.name}]", f"{_CHECKED}[{case.name}]")
    )
    for clause in of_kernel()
}  # fmt: skip

BEHIND: dict[str, tuple[str, ...]] = {
    name: (*_GIVEN.get(name, ()), *_FOUND_IN.get(name, ()), *_KERNELS.get(name, ()))
    for name in {*_GIVEN, *_FOUND_IN, *_KERNELS}
}
