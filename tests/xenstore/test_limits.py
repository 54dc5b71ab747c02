"""What a hostile guest may take of the host: no more than its quotas (tools/xenstored/domain.c, hard_quotas)."""

from __future__ import annotations

import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from pvh.abi import xenstore_wire as wire
from pvh.xenstore import limits
from xenstore.xsclient import HOME, OK, Client


def fill(client: Client, count: int, tx: int = 0) -> list[bytes | str]:
    return [client.write(f"{number % 10}/{number}", tx=tx) for number in range(count)]


def test_nodes(client: Client) -> None:
    free = limits.NODES - client.store.tree.owned(1)
    answers = fill(client, limits.NODES)
    assert answers.count(OK) == free - 10  # ten directories among them
    assert answers[-1] == "ENOSPC"
    assert client.store.tree.owned(1) == limits.NODES
    assert client.write("0/0", b"one that is there") == OK
    assert client.rm("0/0") == OK
    assert client.write("9/new") == OK


def test_a_node_deep_down_counts_with_those_above_it(client: Client) -> None:
    assert client.write("x/" * 1000 + "x") == "ENOSPC"
    assert client.store.tree.owned(1) == 1


def test_nodes_of_a_transaction(client: Client) -> None:
    tx = client.start()
    answers = fill(client, limits.NODES, tx)
    assert "ENOSPC" in answers
    assert client.store.tree.owned(1) == 1
    client.end(tx)
    assert client.store.tree.owned(1) <= limits.NODES


def test_two_transactions_together(client: Client) -> None:
    client.mkdir("a")
    client.mkdir("b")
    one, two = client.start(), client.start()
    for number in range(600):
        client.write(f"a/{number}", tx=one)
        client.write(f"b/{number}", tx=two)
    assert client.end(one) == OK or client.store.tree.owned(1) <= limits.NODES
    client.end(two)
    assert client.store.tree.owned(1) <= limits.NODES


def test_the_size_of_a_node(client: Client) -> None:
    room = limits.NODE_SIZE - 16 - 8  # struct node_hdr, one permission
    assert client.write("a", b"x" * room) == OK
    assert client.write("a", b"x" * (room + 1)) == "ENOSPC"
    assert client.write("b", b"x" * (room + 1)) == "ENOSPC"
    assert client.read("b") == "ENOENT"
    assert client.write("a/b") == "ENOSPC"  # names of children are part of the node
    assert client.set_perms("a", "n1", "r2") == "ENOSPC"
    client.put(f"{HOME}/a", b"x" * wire.PAYLOAD_MAX)  # the toolstack is free


def test_permissions(client: Client) -> None:
    words = [f"r{domid}" for domid in range(limits.PERMISSIONS)]
    assert client.set_perms(HOME, "n1", *words[1:]) == OK
    assert client.set_perms(HOME, "n1", *words) == "ENOSPC"


def test_watches(client: Client) -> None:
    """One more than the quota, as do_watch compares."""
    answers = [client.watch("a", b"%d" % number) for number in range(limits.WATCHES + 2)]
    assert answers == [OK] * (limits.WATCHES + 1) + ["E2BIG"]
    client.unwatch("a", b"0")
    assert client.watch("b") == OK


def test_transactions(client: Client) -> None:
    """One more than the quota, as do_transaction_start compares."""
    ids = [client.start() for _ in range(limits.TRANSACTIONS + 1)]
    assert client.ask(wire.TRANSACTION_START, b"\0") == "ENOSPC"
    client.end(ids[3], b"F")
    assert client.start() not in ids


def test_memory_then_only_giving_some_back_is_possible(client: Client) -> None:
    for directory in range(8):
        for number in range(120):
            client.write(f"{directory}/{'d' * 200}{number}"[:230], b"x" * 1900)
    tokens = [bytes([65 + number]) * 3000 for number in range(60)]
    for token in tokens:
        client.watch("a", token)
    transactions = [client.start() for _ in range(3)]
    answers = [client.read(f"t{number}/{'p' * 1900}", tx) for tx in transactions for number in range(900)]
    assert "ENOMEM" in answers
    assert client.guest.memory < limits.MEMORY + 100_000
    assert client.write("b") == "ENOMEM"
    assert client.watch("b") == "ENOMEM"
    assert client.read(HOME) == b""
    assert client.unwatch("a", tokens[0]) == OK
    for tx in transactions:
        assert client.end(tx, b"F") == OK
    assert client.write("b") == OK


def test_overwriting_takes_no_more(client: Client) -> None:
    tx = client.start()
    client.write("a", b"x" * 1900, tx)
    before = client.guest.memory
    for _ in range(2000):
        assert client.write("a", b"y" * 1900, tx) == OK
    assert client.guest.memory == before


def test_events_that_nobody_reads_are_dropped(client: Client) -> None:
    for number in range(100):
        client.watch("/", b"%03d" % number + b"t" * 2000)
    for number in range(100):
        client.store.write(1, client.store.tree, f"{HOME}/{number}", b"")
    assert client.guest.outbox.memory < limits.MEMORY
    client.told()
    assert client.write("a") == OK
    assert client.told()


def test_memory_is_what_is_left_when_all_is_given_back(client: Client) -> None:
    before = client.guest.memory
    tx = client.start()
    client.write("a/b", b"x", tx)
    client.watch("a")
    client.write("c/d", b"x")
    client.end(tx)
    client.rm("a")
    client.rm("c")
    client.unwatch("a")
    client.told()
    assert client.guest.memory == before


PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 24),
            st.one_of(
                st.binary(max_size=64),
                st.tuples(PATHS, st.binary(max_size=8)).map(lambda pair: pair[0].encode() + b"\0" + pair[1] + b"\0"),
                PATHS.map(lambda path: path.encode() + b"\0"),
            ),
            st.integers(0, 3),
        ),
        max_size=40,
    )
)
def test_whatever_is_asked_is_answered_once(requests: list[tuple[int, bytes, int]]) -> None:
    client = Client()
    for kind, payload, tx in requests:
        client.ask(kind, payload, tx)


def test_a_guest_that_takes_all_it_can_stays_small(client: Client) -> None:
    """Python's own overhead counted: tens of megabytes at most, whatever the guest does."""
    tracemalloc.start()
    for round_ in range(3):
        for number in range(limits.WATCHES + 1):
            client.service.answer(wire.WATCH, 0, 0, b"a\0%d-%d\0" % (round_, number))
        for _ in range(limits.TRANSACTIONS + 1):
            client.service.answer(wire.TRANSACTION_START, 0, 0, b"\0")
        for tx in range(1, 12):
            for number in range(400):
                client.service.answer(wire.WRITE, 0, tx, b"%d/%d\0" % (number % 9, number) + b"x" * 1900)
        client.guest.outbox.take(1 << 30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20
