"""The console ring's back end (facts/xen-abi.md, 11; xen/include/public/io/console.h)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvh.devices.console import Console

OUT, SIZE, OUT_CONS, OUT_PROD, CONNECTION = 1024, 2048, 3080, 3084, 3088
RING = bytes(n * 7 & 0xFF for n in range(SIZE))


class Page:
    def __init__(self, consumed: int = 0) -> None:
        self.bytes = bytearray(b"\xee" * 4096)
        self.bytes[OUT : OUT + SIZE] = RING
        self.said: list[bytes] = []
        self.console = Console(memoryview(self.bytes), self.said.append)
        self.set(OUT_CONS, consumed)
        self.set(OUT_PROD, consumed)

    def set(self, offset: int, index: int) -> None:
        self.bytes[offset : offset + 4] = (index & 0xFFFFFFFF).to_bytes(4, "little")

    def get(self, offset: int) -> int:
        return int.from_bytes(self.bytes[offset : offset + 4], "little")


def test_it_connects() -> None:
    assert Page().bytes[CONNECTION] == 0


def test_nothing_produced_is_nothing_said() -> None:
    page = Page(5)
    assert not page.console.drain()
    assert page.said == []


@given(st.integers(0, 0xFFFFFFFF), st.integers(1, SIZE))
def test_indexes_run_freely_and_wrap_in_the_ring_and_at_32_bits(consumed: int, count: int) -> None:
    page = Page(consumed)
    page.set(OUT_PROD, consumed + count)
    assert page.console.drain()
    start = consumed % SIZE
    assert b"".join(page.said) == (RING + RING)[start : start + count]
    assert page.get(OUT_CONS) == consumed + count & 0xFFFFFFFF
    assert not page.console.drain()


@pytest.mark.parametrize("claimed", [SIZE + 1, 1 << 31, 0xFFFFFFFF])
def test_more_than_a_ring_is_a_lie_that_costs_one_ring(claimed: int) -> None:
    page = Page(100)
    page.set(OUT_PROD, 100 + claimed)
    page.console.drain()
    assert sum(map(len, page.said)) == SIZE
    assert not page.console.drain()


def test_only_the_consumer_index_is_written() -> None:
    page = Page()
    page.set(OUT_PROD, 10)
    before = bytes(page.bytes)
    page.console.drain()
    assert page.bytes[:OUT_CONS] + page.bytes[OUT_PROD:] == before[:OUT_CONS] + before[OUT_PROD:]
