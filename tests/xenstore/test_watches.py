"""Watches (docs/misc/xenstore.txt, "Watches"; tools/xenstored/watch.c)."""

from __future__ import annotations

import pytest

from pvh.abi import xenstore_wire as wire
from pvh.xenstore.permissions import READ, Permission
from xenstore.xsclient import HOME, OK, Client


def test_a_watch_fires_once_at_first_behind_its_reply(client: Client) -> None:
    got = client.raw(wire.WATCH, b"a\0token\0")
    assert [(kind, data) for kind, _, _, data in got] == [(wire.WATCH, OK), (wire.WATCH_EVENT, b"a\0token\0")]
    assert got[1][1:3] == (0, 0)


def test_changes_of_the_node_and_below_it_are_told_before_the_reply(client: Client) -> None:
    client.watch("a")
    client.told()
    assert [kind for kind, *_ in client.raw(wire.WRITE, b"a/b/c\0x")] == [wire.WATCH_EVENT, wire.WRITE]
    client.mkdir("a/d")
    client.mkdir("a/d")  # no change
    client.set_perms("a", "r1")
    client.rm("a/d")
    client.rm("a/d")  # no change
    client.write("ab")
    client.write("c")
    assert client.told() == [("a/d", b"t"), ("a", b"t"), ("a/d", b"t")]


def test_paths_are_told_as_the_watch_named_its_own(client: Client) -> None:
    client.watch("a", b"relative")
    client.watch(f"{HOME}/a", b"absolute")
    client.told()
    client.write("a/b")
    assert client.told() == [("a/b", b"relative"), (f"{HOME}/a/b", b"absolute")]


def test_when_an_ancestor_is_removed_a_watch_is_told_its_own_path(client: Client) -> None:
    """And of nodes that go with it only those who watch that very node."""
    for path in ("a/b/c/d", "a/e"):
        client.write(path)
    client.watch("a/b", b"inner")
    client.watch("a", b"outer")
    client.watch("a/none", b"none")
    client.told()
    client.rm("a")
    assert sorted(client.told()) == [("a", b"outer"), ("a/b", b"inner")]


def test_the_root_is_above_all(client: Client) -> None:
    client.watch("/")
    assert client.told() == [("/", b"t")]
    client.write("a")
    assert client.told() == [(f"{HOME}/a", b"t")]


def test_unwatch_ends_it(client: Client) -> None:
    client.watch("a", b"one")
    client.watch("a", b"two")
    assert client.unwatch("a", b"one") == OK
    assert client.unwatch("a", b"one") == "ENOENT"
    assert client.unwatch(f"{HOME}/a", b"two") == OK  # the same node, named otherwise
    client.told()
    client.write("a")
    assert client.told() == []


def test_a_watch_is_set_once_for_each_token(client: Client) -> None:
    assert [client.watch("a", token) for token in (b"x", b"y", b"x", b"")] == [OK, OK, "EEXIST", OK]
    assert client.watch(f"{HOME}/a", b"x") == "EEXIST"


@pytest.mark.parametrize("kind", [wire.WATCH, wire.UNWATCH])
@pytest.mark.parametrize("payload", [b"", b"a", b"a\0", b"a\0token", b"a\0token\0\0", b"a b\0t\0", b"\0t\0"])
def test_a_watch_is_a_path_and_a_token(client: Client, kind: int, payload: bytes) -> None:
    assert client.ask(kind, payload) == "EINVAL"


def test_tx_id_is_not_looked_at(client: Client) -> None:
    assert client.ask(wire.WATCH, b"a\0t\0", tx=77) == OK
    assert client.ask(wire.UNWATCH, b"a\0t\0", tx=77) == OK


def test_reset_watches_drops_watches_and_transactions(client: Client) -> None:
    client.watch("a")
    tx = client.start()
    client.told()
    assert client.ask(wire.RESET_WATCHES, b"\0") == OK
    client.write("a")
    assert client.told() == []
    assert client.end(tx) == "ENOENT"
    assert client.watch("a") == OK


def test_an_event_that_waits_already_is_not_queued_again(client: Client) -> None:
    client.watch("a")
    client.told()
    for number in range(5):
        client.put(f"{HOME}/a", b"%d" % number)
    client.put(f"{HOME}/a/b")
    assert client.told() == [("a", b"t"), ("a/b", b"t")]
    client.put(f"{HOME}/a")
    assert client.told() == [("a", b"t")]


def test_what_one_may_not_read_one_is_not_told(client: Client) -> None:
    client.watch("/secret")
    client.watch("/secret/open", b"open")
    client.told()
    client.put("/secret/hidden")
    assert client.told() == []
    client.put("/secret/open", b"new")
    assert client.told() == [("/secret/open", b"t"), ("/secret/open", b"open")]


def test_whoever_may_read_the_parent_is_told(client: Client) -> None:
    client.put("/secret/open/hidden", b"", (Permission(0),))
    client.watch("/secret/open")
    client.told()
    client.put("/secret/open/hidden", b"new")
    assert client.told() == [("/secret/open/hidden", b"t")]
    assert client.read("/secret/open/hidden") == "EACCES"


def test_whoever_loses_the_right_to_read_is_told_once_more(client: Client) -> None:
    client.put("/secret/open/below", b"", (Permission(0),))
    client.put("/secret/open", b"", (Permission(0),))
    client.put("/secret/mine", b"", (Permission(0), Permission(1, READ)))
    client.watch("/secret/mine")
    client.told()
    client.store.set_permissions(0, client.store.tree, "/secret/mine", (Permission(0),))
    assert client.told() == [("/secret/mine", b"t")]
    client.put("/secret/mine", b"again")
    assert client.told() == []


def test_children_go_before_their_parents(client: Client) -> None:
    """So that the parent still says who may be told of a child that he may not read (core.c, delnode_sub)."""
    client.put("/secret/open/hidden", b"", (Permission(0),))
    client.watch("/secret/open/hidden")
    client.told()
    client.store.remove(0, client.store.tree, "/secret/open")
    assert client.told() == [("/secret/open/hidden", b"t")]


def test_an_event_longer_than_a_message_is_dropped(client: Client) -> None:
    """core.c, send_event: as nobody may be told that it is too long."""
    token = b"t" * (wire.PAYLOAD_MAX - 3)
    assert client.watch("a", token) == OK
    assert client.told() == [("a", token)]
    client.write("a/b")
    assert client.told() == []
