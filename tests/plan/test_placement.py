"""Segments in libelf's order; parts in libxenguest's."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from plan.kernels import kernel
from pvh.kernel.record import Kernel
from pvh.plan.placement import free_gaps, kernel_ranges, least_memory, place
from pvh.plan.record import FileBytes

PAGE = 0x1000


def loaded(image: Kernel) -> dict[int, tuple[int, int] | None]:
    """Return each byte of memory after libelf's copies and clears: (segment, file offset), None for a cleared one."""
    memory: dict[int, tuple[int, int] | None] = {}
    for segment in image.loads:
        for i in range(segment.memsz):
            memory[segment.paddr + i] = (segment.index, segment.offset + i) if i < segment.filesz else None
    return memory


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), min_size=1, max_size=8))
def test_overlapping_segments_leave_what_loading_them_in_order_leaves(segments: list[tuple[int, int]]) -> None:
    """xen/common/libelf/libelf-loader.c, elf_load_binary: copy filesz, clear up to memsz, one after the other."""
    image = kernel(*segments)
    ranges = kernel_ranges(image)
    assert all(a.end <= b.start for a, b in pairwise(ranges))
    painted: dict[int, tuple[int, int] | None] = {}
    for r in ranges:
        assert isinstance(r.content, FileBytes)
        index = int(r.name.split()[1])
        for i in range(r.size):
            painted[r.start + i] = (index, r.content.offset + i) if i < r.content.count else None
    assert painted == loaded(image)


def test_the_kernels_span_is_kept_free_even_between_its_segments() -> None:
    image = kernel((0x200000, PAGE), (0x400000, 0x10))
    assert free_gaps(image, 0x800000, ()) == [(0x401000, 0x800000), (0x100000, 0x200000), (PAGE, 0xA0000)]


def test_a_taken_span_costs_its_whole_pages() -> None:
    image = kernel((0x10000, PAGE))
    gaps = free_gaps(image, 0x200000, [(0xFFFC0, 0x100000)])
    assert gaps == [(0x11000, 0xFF000), (0x100000, 0x200000), (PAGE, 0x10000)]


def test_parts_take_the_first_gap_that_has_room_in_their_order() -> None:
    gaps = [(0x10000, 0x12000), (0x100000, 0x110000)]
    assert place([1, 0x3000, 0, 0x1001], gaps) == [0x10000, 0x100000, 0x11000, 0x103000]
    assert place([0x10001], gaps) is None


@given(st.integers(0, 0xFC000))
def test_least_memory_is_the_edge(edge: int) -> None:
    assert least_memory(lambda memory: memory >= edge * PAGE, 0) == edge * PAGE


def test_there_is_no_least_memory_when_nothing_helps() -> None:
    assert least_memory(lambda _: False, 0) is None
    assert least_memory(lambda _: True, 0xFC000001) is None
