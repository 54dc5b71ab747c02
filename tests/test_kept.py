"""State as plain values, and as text that makes nothing else."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvh.kept import apply, capture, dumps, loads
from pvh.record import dataclass


@dataclass(frozen=True, slots=True)
class Pair:
    """A record."""

    one: int
    other: Any


class Box:
    """A thing with state, and with wiring."""

    KEPT = ("number", "names", "view", "inner")

    def __init__(self, inner: Any = None) -> None:
        self.number, self.names, self.view = 1, {"a": {2}}, memoryview(bytearray(2))
        self.inner = inner
        self.wiring = object()


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.lists(inner).map(deque)
        | st.dictionaries(st.integers() | st.text() | st.tuples(st.text(), st.binary()), inner)
        | st.frozensets(st.integers() | st.binary())
        | st.sets(st.text())
        | st.builds(Pair, st.integers(), inner)
    ),
)


@given(plain)
def test_text_brings_back_every_plain_value(value: Any) -> None:
    back = loads(dumps(value), (Pair,))
    assert back == value
    assert type(back) is type(value)


def test_what_is_kept_shares_nothing_that_changes_and_goes_back_in_place() -> None:
    box = Box(Box())
    view, wiring, inner = box.view, box.wiring, box.inner
    state = capture(box)
    box.number, box.inner.number = 5, 6
    box.names["a"].add(3)
    box.view[:] = b"xy"
    for _ in range(2):
        apply(box, state)
        assert (box.number, box.names, bytes(box.view), box.inner.number) == (1, {"a": {2}}, b"\0\0", 1)
        assert (box.view, box.wiring, box.inner) == (view, wiring, inner)
        box.names["a"].add(4)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense", "1.5", '{"record":["Pair",1]}', '{"record":["Box"]}', '{"record":["os.system","true"]}',
        '{"eval":"1"}', "{}", '{"tuple":[],"list":[]}', '{"bytes":"!"}', '{"bytes":"AAAA"}', "[" * 100_000,
    ],
)  # fmt: skip
def test_text_that_dumps_did_not_write_makes_nothing(text: str) -> None:
    with pytest.raises(ValueError, match="no state"):
        loads(text, (Pair,))


def test_bytes_unpack_to_a_bounded_size() -> None:
    with pytest.raises(ValueError, match="more bytes"):
        loads(dumps(bytes(4 << 20)), ())
