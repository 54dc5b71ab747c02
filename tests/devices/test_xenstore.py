"""The xenstore ring's back end (facts/xen-abi.md, 11; docs/misc/xenstore-ring.txt; xs_wire.h)."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvh.abi import xenstore_wire as wire
from pvh.devices.xenstore import XenstoreRing
from pvh.xenstore import limits
from pvh.xenstore.permissions import Permission
from pvh.xenstore.service import Service
from pvh.xenstore.store import Store
from xenstore.xsclient import HOME, OK, Message, messages

REQ, RSP, REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD = 0, 1024, 2048, 2052, 2056, 2060
CONNECTION, ERROR = 2068, 2072
SIZE = 1024


class Page:
    """A page, its back end, and a guest's side of the ring."""

    def __init__(self, start: int = 0) -> None:
        self.bytes = bytearray(4096)
        self.store = Store(1)
        self.store.write(0, self.store.tree, HOME, b"")
        self.store.set_permissions(0, self.store.tree, HOME, (Permission(1),))
        self.notified = 0
        self.ring = XenstoreRing(memoryview(self.bytes), self.store.guest, Service(self.store).answer, self.notify)
        for index in (REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD):
            self.set(index, start)

    def notify(self) -> None:
        self.notified += 1

    def set(self, offset: int, value: int) -> None:
        self.bytes[offset : offset + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")

    def get(self, offset: int) -> int:
        return int.from_bytes(self.bytes[offset : offset + 4], "little")

    def put(self, data: bytes) -> int:
        """Write what fits into the request ring, as Linux's xb_write; return how much."""
        produced = self.get(REQ_PROD)
        count = min(len(data), SIZE - (produced - self.get(REQ_CONS) & 0xFFFFFFFF))
        for at, byte in enumerate(data[:count]):
            self.bytes[REQ + (produced + at) % SIZE] = byte
        self.set(REQ_PROD, produced + count)
        return count

    def take(self, limit: int = SIZE) -> bytes:
        """Read what is in the response ring, as Linux's xb_read."""
        consumed = self.get(RSP_CONS)
        count = min(limit, self.get(RSP_PROD) - consumed & 0xFFFFFFFF)
        assert count <= SIZE
        data = bytes(self.bytes[RSP + (consumed + at) % SIZE] for at in range(count))
        self.set(RSP_CONS, consumed + count)
        return data

    def converse(self, data: bytes, piece: int = SIZE, bite: int = SIZE) -> list[Message]:
        """Send all, in pieces, notifying after each; return all that comes, read in bites."""
        got = b""
        idle = 0
        while data or idle < 2:
            sent = self.put(data[:piece])
            data = data[sent:]
            self.ring.serve()
            read = self.take(bite)
            got += read
            idle = 0 if sent or read else idle + 1
        return messages(got)


def message(kind: int, payload: bytes, req_id: int = 0, tx_id: int = 0) -> bytes:
    return struct.pack(wire.HEADER, kind, req_id, tx_id, len(payload)) + payload


def read(path: str, req_id: int = 0) -> bytes:
    return message(wire.READ, path.encode() + b"\0", req_id)


def test_the_page_is_laid_out_as_xs_wire_h_says() -> None:
    assert (wire.REQ, wire.RSP, wire.RING_SIZE) == (0, 1024, 1024)
    assert (wire.REQ_CONS, wire.REQ_PROD, wire.RSP_CONS, wire.RSP_PROD) == (2048, 2052, 2056, 2060)
    assert (wire.SERVER_FEATURES, wire.CONNECTION, wire.ERROR_FIELD) == (2064, 2068, 2072)


def test_a_request_is_answered_and_the_guest_notified() -> None:
    page = Page()
    page.put(read(HOME, 7))
    page.ring.serve()
    assert page.take() == message(wire.READ, b"", 7)
    assert page.notified == 1
    assert page.get(REQ_CONS) == page.get(REQ_PROD)


def test_nothing_to_do_is_no_news() -> None:
    page = Page()
    page.ring.serve()
    assert page.notified == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 0xFFFFFFFF), st.integers(1, 100), st.integers(1, 100), st.integers(0, 1500))
def test_messages_may_be_split_anywhere_and_indexes_wrap(start: int, piece: int, bite: int, size: int) -> None:
    page = Page(start)
    value = bytes(random.Random(size).randbytes(size))
    stream = message(wire.WRITE, b"a\0" + value, 1) + read("a", 2) + message(0xFFFF, b"", 3) + read("b", 4)
    assert page.converse(stream, piece, bite) == [
        (wire.WRITE, 1, 0, OK),
        (wire.READ, 2, 0, value),
        (wire.ERROR, 3, 0, b"ENOSYS\0"),
        (wire.ERROR, 4, 0, b"ENOENT\0"),
    ]
    assert page.get(ERROR) == 0


def test_the_longest_message_passes_both_ways() -> None:
    page = Page(1000)
    page.store.write(0, page.store.tree, f"{HOME}/a", b"v" * wire.PAYLOAD_MAX)
    ask = message(wire.WRITE, b"b\0" + b"x" * (wire.PAYLOAD_MAX - 2), 1)
    got = page.converse(ask + read("a", 2))
    assert got == [(wire.ERROR, 1, 0, b"ENOSPC\0"), (wire.READ, 2, 0, b"v" * wire.PAYLOAD_MAX)]


def test_a_message_longer_than_the_protocols_ends_the_connection() -> None:
    page = Page()
    page.put(read(HOME) + struct.pack(wire.HEADER, wire.WRITE, 0, 0, wire.PAYLOAD_MAX + 1) + read(HOME))
    page.ring.serve()
    assert (page.get(ERROR), page.notified) == (3, 1)  # XENSTORE_ERROR_PROTO
    assert page.take() == message(wire.READ, b""), "what came before it is answered, what comes behind it is not"
    page.put(read(HOME))
    page.ring.serve()
    page.ring.push()
    assert (page.get(ERROR), page.notified) == (3, 1)


@pytest.mark.parametrize("offset", [REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD])
@pytest.mark.parametrize("lie", [SIZE + 1, 1 << 31, -1])
def test_indexes_further_apart_than_the_ring_is_long_end_it(offset: int, lie: int) -> None:
    page = Page()
    page.set(offset, lie if offset in (REQ_PROD, RSP_PROD) else -lie)
    page.ring.serve()
    assert page.get(ERROR) == 2  # XENSTORE_ERROR_RINGIDX
    assert page.notified == 1


def test_the_end_drops_watches_and_transactions() -> None:
    page = Page()
    page.converse(message(wire.WATCH, b"a\0t\0") + message(wire.TRANSACTION_START, b"\0"))
    page.set(REQ_PROD, page.get(REQ_PROD) + 2000)
    page.ring.serve()
    assert page.store.guest.watches.memory == 0
    page.store.write(0, page.store.tree, f"{HOME}/a", b"")
    page.ring.push()
    assert page.take() == b""


def test_a_guest_may_reconnect() -> None:
    """docs/misc/xenstore-ring.txt: it sets `connection`, notifies, and waits until that is 0 again."""
    page = Page(77)
    page.converse(message(wire.WATCH, b"a\0t\0"))
    page.put(b"half a head")
    page.ring.serve()
    page.set(RSP_PROD, 5000)
    page.ring.serve()
    assert page.get(ERROR) == 2
    page.set(CONNECTION, 1)
    page.ring.serve()
    assert [page.get(offset) for offset in (REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD, CONNECTION, ERROR)] == [0] * 6
    assert page.converse(read(HOME, 9)) == [(wire.READ, 9, 0, b"")]
    assert page.converse(message(wire.WATCH, b"a\0t\0")) == [
        (wire.WATCH, 0, 0, OK),
        (wire.WATCH_EVENT, 0, 0, b"a\0t\0"),
    ]


def test_reconnecting_forgets_what_was_under_way() -> None:
    page = Page()
    page.converse(message(wire.WATCH, b"a\0t\0") + b"half a head")
    page.set(CONNECTION, 1)
    page.ring.serve()
    assert page.converse(message(wire.WATCH, b"a\0t\0")) == [
        (wire.WATCH, 0, 0, OK),
        (wire.WATCH_EVENT, 0, 0, b"a\0t\0"),
    ]


def test_what_the_guest_does_not_read_waits_and_stops_it_from_asking() -> None:
    page = Page()
    page.store.write(0, page.store.tree, f"{HOME}/a", b"v" * 2000)
    asked = 0
    for _ in range(100):
        asked += page.put(read("a"))
        page.ring.serve()
    assert page.store.guest.outbox.outstanding == limits.OUTSTANDING
    assert page.store.guest.outbox.memory < limits.OUTSTANDING * 4200
    assert page.get(REQ_PROD) - page.get(REQ_CONS) == SIZE  # the rest waits in the guest's own memory
    got = page.converse(b"")
    assert len(got) == asked // len(read("a"))
    assert {data for *_, data in got} == {b"v" * 2000}


def test_events_reach_a_guest_that_did_not_ask() -> None:
    page = Page()
    page.converse(message(wire.WATCH, b"a\0t\0"))
    before = page.notified
    page.store.write(0, page.store.tree, f"{HOME}/a/b", b"")
    page.ring.push()
    assert messages(page.take()) == [(wire.WATCH_EVENT, 0, 0, b"a/b\0t\0")]
    assert page.notified == before + 1


def test_what_comes_meanwhile_waits_for_the_next_notification() -> None:
    """So that a guest whose other vCPU goes on writing cannot keep the host busy."""
    page = Page()
    answered: list[int] = []

    def answer(kind: int, req_id: int, tx_id: int, payload: bytes) -> None:
        del kind, tx_id, payload
        answered.append(req_id)
        page.put(read(HOME, req_id + 1))

    page.ring = XenstoreRing(memoryview(page.bytes), page.store.guest, answer, page.notify)
    page.put(read(HOME, 1))
    page.ring.serve()
    assert answered == [1]
    page.ring.serve()
    assert answered == [1, 2]


@pytest.mark.parametrize("seed", range(40))
def test_garbage_harms_nobody_but_the_guest(seed: int) -> None:
    """Random bytes in the whole page, again and again: nothing is raised, and what the host keeps is bounded."""
    source = random.Random(seed)
    page = Page()
    for _ in range(60):
        if source.random() < 0.5:
            page.bytes[:2048] = source.randbytes(2048)
        for offset in (REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD):
            if source.random() < 0.2:
                page.set(offset, source.choice([source.getrandbits(32), source.getrandbits(10)]))
        if source.random() < 0.7:
            kind, length = source.randrange(24), source.randrange(40)
            page.put(struct.pack(wire.HEADER, kind, 1, source.randrange(3), length) + source.randbytes(length))
        if source.random() < 0.3:
            page.set(CONNECTION, source.getrandbits(1))
        page.ring.serve()
        if source.random() < 0.5:
            page.set(RSP_CONS, page.get(RSP_PROD))
        assert page.store.guest.memory < 1 << 20
        assert page.get(ERROR) in (0, 2, 3)
    page.set(CONNECTION, 1)
    page.ring.serve()
    assert page.converse(read(HOME, 1)) == [(wire.READ, 1, 0, page.store.tree.get(HOME).value)]  # type: ignore[union-attr]


def test_only_indexes_error_and_responses_are_written() -> None:
    page = Page()
    page.put(read(HOME))
    before = bytes(page.bytes)
    page.ring.serve()
    after = bytes(page.bytes)
    assert after[:1024] == before[:1024]
    assert after[REQ_PROD:RSP_PROD] == before[REQ_PROD:RSP_PROD]
    assert after[2064:] == before[2064:]
