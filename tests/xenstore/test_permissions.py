"""Who may do what (docs/misc/xenstore.txt; core.c: perm_for_conn, errno_from_parents, do_set_perms)."""

from __future__ import annotations

import pytest

from pvh.abi import xenstore_wire as wire
from pvh.xenstore.permissions import OWNER, READ, WRITE, Permission, allowed, parse
from xenstore.xsclient import HOME, OK, Client

ALL = READ | WRITE | OWNER


@pytest.mark.parametrize(
    ("words", "domid", "access"),
    [
        ("n1", 1, ALL),  # the owner, whatever its letter
        ("n5", 0, ALL),  # the toolstack
        ("n0", 1, 0),
        ("r0", 1, READ),
        ("w0", 1, WRITE),
        ("b0", 1, READ | WRITE),
        ("n0 r1", 1, READ),
        ("b0 n1", 1, 0),  # a domain's own entry is all that counts for it
        ("n0 r1 w1", 1, READ),  # and the first of them
        ("n0 r2", 1, 0),
    ],
)
def test_the_owner_may_all_the_named_what_their_entry_says_the_others_what_the_first_says(
    words: str, domid: int, access: int
) -> None:
    permissions = parse([word.encode() for word in words.split()])
    assert permissions is not None
    assert allowed(permissions, domid) == access


@pytest.mark.parametrize("word", ["", "n", "x1", "1", "n-1", "n1x", "n 1", "n65536", "n999999999", "é1", "N1"])
def test_what_is_no_permission(client: Client, word: str) -> None:
    assert client.set_perms(HOME, "n1", word) == "EINVAL"


def test_permissions_are_told_as_they_were_given(client: Client) -> None:
    assert client.set_perms(HOME, "b1", "r0", "w7", "n65535") == OK
    assert client.perms(HOME) == b"b1\0r0\0w7\0n65535\0"


def test_set_perms_needs_a_path_and_a_permission(client: Client) -> None:
    assert client.ask(wire.SET_PERMS, b"") == "EINVAL"
    assert client.ask(wire.SET_PERMS, HOME.encode() + b"\0") == "EINVAL"


def test_a_guest_may_not_give_its_nodes_away_nor_take_others(client: Client) -> None:
    assert client.set_perms(HOME, "n0") == "EPERM"
    assert client.set_perms(HOME, "n44") == "ENOENT"  # no such domain
    client.put("/shared", b"", (Permission(0), Permission(1, READ | WRITE)))
    assert client.write("/shared", b"x") == OK
    assert client.set_perms("/shared", "n0", "r1") == "EACCES"  # only its owner may


def test_who_may_write_but_not_read(client: Client) -> None:
    assert client.write("/secret/drop", b"x") == OK
    assert client.read("/secret/drop") == "EACCES"
    assert client.list("/secret/drop") == "EACCES"
    assert client.perms("/secret/drop") == "EACCES"


def test_who_may_read_but_not_write(client: Client) -> None:
    assert client.read("/secret/open") == b"seen"
    assert client.perms("/secret/open") == b"n0\0r1\0"
    assert client.write("/secret/open") == "EACCES"
    assert client.mkdir("/secret/open") == "EACCES"
    assert client.rm("/secret/open") == "EACCES"
    assert client.write("/secret/open/below") == "EACCES"


def test_whoever_may_not_read_is_not_told_whether_it_is_there(client: Client) -> None:
    assert client.read("/secret") == "EACCES"
    assert client.read("/secret/none") == "EACCES"
    assert client.read("/secret/none/below") == "EACCES"
    assert client.read("/nothing/here") == "EACCES"
    assert client.read("/secret/open/none") == "ENOENT"  # may read where it would be
    assert client.rm("/secret/none") == "EACCES"


def test_a_guest_owns_what_it_makes_and_the_rest_is_inherited(client: Client) -> None:
    client.put("/shared", b"", (Permission(0, READ), Permission(1, READ | WRITE), Permission(3, READ)))
    assert client.write("/shared/a/b") == OK
    assert client.perms("/shared/a") == client.perms("/shared/a/b") == b"r1\0b1\0r3\0"
    client.put("/shared/c")
    assert client.perms("/shared/c") == b"r0\0b1\0r3\0"


def test_permissions_are_set_in_transactions_too(client: Client) -> None:
    client.write("a")
    tx = client.start()
    assert client.set_perms("a", "r1", tx=tx) == OK
    assert client.perms("a", tx) == b"r1\0"
    assert client.perms("a") == b"n1\0"
    assert client.end(tx) == OK
    assert client.perms("a") == b"r1\0"
