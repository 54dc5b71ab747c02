"""Transactions (docs/misc/xenstore.txt, "Transactions"; the examples on top of tools/xenstored/transaction.c)."""

from __future__ import annotations

import pytest

from pvh.abi import xenstore_wire as wire
from pvh.xenstore import limits
from pvh.xenstore.permissions import WRITE, Permission
from xenstore.xsclient import HOME, OK, Client


def test_changes_are_seen_inside_only_until_they_are_committed(client: Client) -> None:
    tx = client.start()
    assert client.write("a/b", b"new", tx) == OK
    assert (client.read("a/b", tx), client.list(HOME, tx)) == (b"new", b"a\0")
    assert (client.read("a/b"), client.list(HOME)) == ("ENOENT", b"")
    assert client.end(tx) == OK
    assert (client.read("a/b"), client.list(HOME)) == (b"new", b"a\0")


def test_f_forgets_them(client: Client) -> None:
    client.write("a", b"old")
    tx = client.start()
    client.write("a", b"new", tx)
    client.rm("a", tx)
    assert client.end(tx, b"F") == OK
    assert client.read("a") == b"old"


def test_1_reading_one_node_and_writing_another(client: Client) -> None:
    client.write("A")
    client.write("B")
    tx = client.start()
    client.read("A", tx)
    client.write("B", b"new", tx)
    assert client.end(tx) == OK
    assert client.read("B") == b"new"


def test_2_what_was_read_was_written_meanwhile(client: Client) -> None:
    client.write("A")
    client.write("B", b"old")
    tx = client.start()
    client.read("A", tx)
    client.write("A", b"")  # the same value, but another generation
    client.write("B", b"new", tx)
    assert client.end(tx) == "EAGAIN"
    assert client.read("B") == b"old"
    assert client.end(tx) == "ENOENT"  # it is gone, committed or not


def test_3_what_was_read_was_deleted_meanwhile(client: Client) -> None:
    client.write("A")
    tx = client.start()
    client.read("A", tx)
    client.rm("A")
    client.write("B", b"new", tx)
    assert client.end(tx) == "EAGAIN"


def test_4_two_that_interfere(client: Client) -> None:
    client.write("A")
    client.write("B")
    one, two = client.start(), client.start()
    assert one != two
    client.read("A", one)
    client.read("B", two)
    client.write("B", b"1", one)
    client.write("A", b"2", two)
    assert client.end(one) == OK
    assert client.end(two) == "EAGAIN"
    assert (client.read("A"), client.read("B")) == (b"", b"1")


@pytest.mark.parametrize("change", ["made", "deleted and made again"])
def test_what_was_absent_or_is_there_anew_conflicts(client: Client, change: str) -> None:
    if change != "made":
        client.write("A")
    tx = client.start()
    client.read("A", tx)
    client.rm("A")
    client.write("A")
    assert client.end(tx) == "EAGAIN"


def test_the_toolstacks_changes_conflict_as_well(client: Client) -> None:
    """Linux takes control/shutdown in a transaction, and tries again on EAGAIN (drivers/xen/manage.c)."""
    client.put(f"{HOME}/control/shutdown", b"reboot")
    tx = client.start()
    client.read("control/shutdown", tx)
    client.put(f"{HOME}/control/shutdown", b"poweroff")
    client.write("control/shutdown", b"", tx)
    assert client.end(tx) == "EAGAIN"
    assert client.read("control/shutdown") == b"poweroff"


def test_other_changes_do_not_conflict(client: Client) -> None:
    client.write("dir/A")
    client.write("other/B")
    tx = client.start()
    client.write("dir/A", b"new", tx)
    client.write("other/C")
    client.write("other/B", b"new")
    assert client.end(tx) == OK


def test_making_nodes_in_one_directory_conflicts(client: Client) -> None:
    """A node's children are part of it."""
    client.write("dir/A")
    tx = client.start()
    client.write("dir/B", b"", tx)
    client.write("dir/C")
    assert client.end(tx) == "EAGAIN"
    assert client.list("dir") == b"A\0C\0"


def test_events_come_when_it_is_committed_each_path_once(client: Client) -> None:
    client.watch("a")
    client.told()
    tx = client.start()
    client.write("a/b", b"1", tx)
    client.write("a/b", b"2", tx)
    client.write("a/c", b"", tx)
    assert client.told() == []
    client.end(tx)
    assert client.told() == [("a/b", b"t"), ("a/c", b"t")]


def test_no_events_come_of_what_is_not_committed(client: Client) -> None:
    client.write("a")
    client.watch("a")
    client.told()
    lost, conflicting = client.start(), client.start()
    client.write("a", b"", lost)
    client.write("a/b", b"", conflicting)
    client.write("a/c")
    client.end(lost, b"F")
    assert client.end(conflicting) == "EAGAIN"
    assert client.told() == [("a/c", b"t")]


def test_a_removal_is_told_of_by_what_it_was(client: Client) -> None:
    client.write("a/b/c")
    client.watch("a/b", b"inner")
    client.watch("a/b/c", b"innermost")
    client.watch("a", b"outer")
    client.told()
    tx = client.start()
    client.rm("a/b", tx)
    client.end(tx)
    assert sorted(client.told()) == [("a/b", b"inner"), ("a/b", b"outer"), ("a/b/c", b"innermost")]


def test_what_was_written_before_it_was_removed_is_told_to_all_above(client: Client) -> None:
    """transaction.c, queue_watches: an event for an exact path does not replace one for all."""
    client.write("a/b/c")
    client.watch("a/b")
    client.told()
    tx = client.start()
    client.write("a/b/c", b"new", tx)
    client.rm("a", tx)
    client.end(tx)
    assert sorted(client.told()) == [("a/b", b"t"), ("a/b/c", b"t")]


def test_the_parent_of_what_was_removed_in_a_transaction_gives_no_right_to_be_told(client: Client) -> None:
    """watch.c, watch_permitted: of a node that is not there any more, only what it was before counts."""
    client.put("/secret/open/drop", b"", (Permission(0), Permission(1, WRITE)))
    client.watch("/secret/open")
    client.told()
    tx = client.start()
    assert client.rm("/secret/open/drop", tx) == OK
    assert client.end(tx) == OK
    assert client.value("/secret/open/drop") is None
    assert client.told() == []


def test_a_removed_tree_can_be_made_again_in_one_transaction(client: Client) -> None:
    client.write("a/b", b"old")
    tx = client.start()
    client.rm("a", tx)
    assert client.read("a/b", tx) == "ENOENT"
    client.write("a/c", b"new", tx)
    client.end(tx)
    assert (client.list("a"), client.read("a/b")) == (b"c\0", "ENOENT")


@pytest.mark.parametrize("kind", [wire.READ, wire.WRITE, wire.TRANSACTION_END, wire.RESET_WATCHES])
def test_an_unknown_transaction_is_enoent(client: Client, kind: int) -> None:
    assert client.ask(kind, b"T\0", tx=4711) == "ENOENT"


def test_transactions_do_not_nest(client: Client) -> None:
    tx = client.start()
    assert client.ask(wire.TRANSACTION_START, b"\0", tx) == "EBUSY"


@pytest.mark.parametrize("payload", [b"", b"T", b"X\0", b"\0", b"T\0F\0", b"TT\0"])
def test_the_end_is_t_or_f(client: Client, payload: bytes) -> None:
    tx = client.start()
    assert client.ask(wire.TRANSACTION_END, payload, tx) == "EINVAL"
    assert client.end(tx) == OK  # it is still open
    assert client.end(0) == "ENOENT"


def test_ids_are_never_zero_and_never_in_use(client: Client) -> None:
    open_now = client.start()
    client.guest.transactions._next = 0xFFFFFFFF
    assert [client.start(), client.start()] == [0xFFFFFFFF, open_now + 1]


def test_a_transaction_touches_at_most_so_many_nodes(client: Client) -> None:
    tx = client.start()
    answers = [client.read(f"n{number}", tx) for number in range(limits.TRANSACTION_NODES)]
    assert answers[0] == "ENOENT"
    assert answers[-1] == "ENOSPC"
    assert client.end(tx) == "ENOMEM"
