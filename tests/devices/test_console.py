"""The console ring's back end (facts/xen-abi.md, 11; xen/include/public/io/console.h)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvh.devices.console import Console

IN_SIZE, IN_CONS, IN_PROD = 1024, 3072, 3076
OUT, SIZE, OUT_CONS, OUT_PROD, CONNECTION = 1024, 2048, 3080, 3084, 3088
RING = bytes(n * 7 & 0xFF for n in range(SIZE))


class Page:
    def __init__(self, consumed: int = 0) -> None:
        self.bytes = bytearray(b"\xee" * 4096)
        self.bytes[OUT : OUT + SIZE] = RING
        self.said: list[bytes] = []
        self.typing = bytearray()
        self.console = Console(memoryview(self.bytes), self.said.append, self.take)
        self.set(IN_CONS, 0)
        self.set(IN_PROD, 0)
        self.set(OUT_CONS, consumed)
        self.set(OUT_PROD, consumed)

    def set(self, offset: int, index: int) -> None:
        self.bytes[offset : offset + 4] = (index & 0xFFFFFFFF).to_bytes(4, "little")

    def take(self, count: int) -> bytes:
        data = bytes(self.typing[:count])
        del self.typing[:count]
        return data

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


class TestInput:
    """struct xencons_interface: in[1024], in_cons at 3072, in_prod at 3076."""

    @given(st.integers(0, 0xFFFFFFFF), st.binary(min_size=1, max_size=IN_SIZE))
    def test_bytes_go_behind_the_producer_index_and_wrap(self, index: int, data: bytes) -> None:
        page = Page()
        page.set(IN_CONS, index)
        page.set(IN_PROD, index)
        page.typing += data
        assert page.console.fill()
        start = index % IN_SIZE
        ring = bytes(page.bytes[:IN_SIZE])
        assert (ring + ring)[start : start + len(data)] == data
        assert (page.get(IN_CONS), page.get(IN_PROD)) == (index, index + len(data) & 0xFFFFFFFF)

    def test_what_does_not_fit_waits(self) -> None:
        page = Page()
        page.typing += bytes(range(256)) * 5
        assert page.console.fill()
        assert len(page.typing) == 5 * 256 - IN_SIZE
        assert not page.console.fill()
        page.set(IN_CONS, 6)
        assert page.console.fill()
        assert page.bytes[:6] == bytes(range(6))
        assert page.get(IN_PROD) == IN_SIZE + 6

    @pytest.mark.parametrize("consumed", [1, 0x80000000, 0xFFFFFFFF - IN_SIZE])
    def test_a_consumer_that_claims_what_cannot_be_gets_nothing(self, consumed: int) -> None:
        """in_prod - in_cons above the ring's size: there is no room then."""
        page = Page()
        page.set(IN_CONS, consumed)
        page.typing += b"x"
        before = bytes(page.bytes)
        assert not page.console.fill()
        assert page.bytes == before

    def test_without_input_nothing_is_written(self) -> None:
        page = Page()
        before = bytes(page.bytes)
        assert not page.console.fill()
        assert page.bytes == before

    def test_only_the_ring_and_the_producer_index_are_written(self) -> None:
        page = Page()
        before = bytes(page.bytes)
        page.typing += b"hello"
        page.console.fill()
        assert page.bytes == b"hello" + before[5:IN_PROD] + (5).to_bytes(4, "little") + before[IN_PROD + 4 :]
