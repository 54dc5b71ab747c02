"""Code runs as it was written last, by whatever address it was written (AMD APM vol. 2, 7.6.1)."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engines.emulator.harness import Ran, run
from engines.flat import MEMORY, assemble, flat_image, long_state
from pvh.build.ram import Block, GuestRam
from pvh.engines.emulator.code import CodeMap
from pvh.engines.emulator.libunicorn import Handle
from pvh.engines.emulator.native import GRANULE

OUT = "out %al, $0xf4"
FIRST, SECOND = 0x180000, 0x180800  # functions in one page
ALIAS = 0x200000  # the same page, for data
CALLS = f"call {FIRST}; mov %rax,%r10; call {SECOND}; mov %rax,%r11"


def ran(source: str) -> Ran:
    """Run 64-bit code beside functions that return 1."""
    ram = GuestRam(((0, MEMORY),))
    state = long_state(ram, user=False)
    assert ram.write(0x14000, (FIRST | 3 | 1 << 63).to_bytes(8, "little"))  # present, writable, NX
    for at in FIRST, SECOND:
        assert ram.write(at, b"\xb8\x01\x00\x00\x00\xc3")  # mov $1, %eax ; ret
    return run(flat_image(assemble(source, 64), state, ram=ram))


@cache
def library_handle() -> Handle:
    """Return one handle for tests that run nothing."""
    return Handle()


def test_functions_that_ran_before_they_are_changed() -> None:
    changed = ran(f"{CALLS}; movb $2,{ALIAS + 1}; movb $3,{ALIAS + 0x801}; {CALLS}; {OUT}")
    assert changed.state.gprs[10:12] == (2, 3)


def test_a_page_of_data_becomes_one_of_code() -> None:
    """The alias is known as a page where nothing but data is stored when the code runs first."""
    stores = f"movb $4,{ALIAS + 1}; movb $5,{ALIAS + 0x801}"
    changed = ran(f"{stores}; {CALLS}; movb $2,{ALIAS + 1}; movb $3,{ALIAS + 0x801}; {CALLS}; {OUT}")
    assert changed.state.gprs[10:12] == (2, 3)


class TestRanges:
    @given(st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(1, 1 << 18)), min_size=1, max_size=80))
    def test_they_are_few_apart_and_hold_all(self, pieces: list[tuple[int, int]]) -> None:
        made = CodeMap(library_handle(), (Block(0, 1 << 30, 0, memoryview(b"")),), None)
        for gpa, size in pieces:
            made.cover(gpa, size)
        assert len(made.ranges) <= 32
        assert all(before[1] < after[0] for before, after in pairwise(made.ranges))
        for gpa, size in pieces:
            assert any(low * GRANULE <= gpa and gpa + size <= high * GRANULE for low, high in made.ranges)

    def test_neighbours_are_one(self) -> None:
        made = CodeMap(library_handle(), (Block(0, 1 << 30, 0, memoryview(b"")),), None)
        for gpa in 3 * GRANULE, 5 * GRANULE, 4 * GRANULE + 7, 4 * GRANULE:
            made.cover(gpa, 1)
        assert made.ranges == [(3, 6)]
