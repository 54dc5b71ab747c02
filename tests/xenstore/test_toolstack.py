"""The store from outside: a toolstack's rights, calls for what it watches, and a guest that is told."""

from __future__ import annotations

import threading

import pytest

from pvh.xenstore.permissions import Permission
from pvh.xenstore.refusal import Refusal
from pvh.xenstore.toolstack import Access
from xenstore.xsclient import HOME, Client


class Host:
    """Access to a client's store; counts how often the guest was pushed something."""

    def __init__(self) -> None:
        self.client = Client()
        self.pushed = 0
        self.access = Access(self.client.store, threading.RLock(), self.push)

    def push(self) -> None:
        self.pushed += 1


@pytest.fixture
def host() -> Host:
    return Host()


def test_paths_may_be_relative_to_the_guests(host: Host) -> None:
    host.access.write("a/b", "text")
    assert host.client.value(f"{HOME}/a/b") == host.access.read(f"{HOME}/a/b") == host.access.read("a/b") == b"text"
    assert host.access.children("a") == ("b",)
    assert (host.access.read("none"), host.access.children("none")) == (None, ())


def test_nothing_is_forbidden_but_to_remove_the_root(host: Host) -> None:
    assert host.access.read("/secret") == b"hidden"
    assert host.access.remove("/secret")
    with pytest.raises(Refusal, match="EINVAL"):
        host.access.remove("/")
    with pytest.raises(Refusal, match="EINVAL"):
        host.access.write("a b", "")


def test_permissions_may_be_given_with_a_value(host: Host) -> None:
    host.access.write("mine", "", (Permission(0),))
    assert host.access.permissions("mine") == (Permission(0),)
    assert host.client.read("mine") == "EACCES"
    host.access.write("mine", "kept")
    assert host.access.permissions("mine") == (Permission(0),)


def test_each_change_is_pushed_to_the_guest(host: Host) -> None:
    host.client.watch("a")
    host.client.told()
    host.access.write("a", b"1")
    assert (host.pushed, host.client.told()) == (1, [("a", b"t")])
    host.access.remove("a")
    assert (host.pushed, host.client.told()) == (2, [("a", b"t")])
    assert not host.access.remove("a")
    assert host.pushed == 2


def test_a_watch_calls_with_the_absolute_path_until_it_is_taken_back(host: Host) -> None:
    told: list[str] = []
    watch = host.access.watch("a", told.append)
    assert told == []
    host.client.write("a/b")
    host.access.write("a", "")
    host.access.unwatch(watch)
    host.client.write("a/b")
    assert told == [f"{HOME}/a/b", f"{HOME}/a"]
    with pytest.raises(Refusal, match="ENOENT"):
        host.access.unwatch(watch)


def test_who_is_called_may_change_the_store_and_what_is_watched(host: Host) -> None:
    told: list[str] = []

    def first(path: str) -> None:
        told.append(path)
        host.access.unwatch(second)
        host.access.write("reply", "seen")

    host.access.watch("a", first)
    second = host.access.watch("a", told.append)
    host.client.write("a")
    assert told == [f"{HOME}/a"]
    assert host.client.read("reply") == b"seen"


@pytest.mark.parametrize(
    ("watched", "listens"), [("a/b", True), ("a", True), ("/", True), ("a/b/c", False), ("ab", False)]
)
def test_whether_the_guest_watches_a_node(host: Host, watched: str, *, listens: bool) -> None:
    host.client.watch(watched)
    assert host.access.is_watched("a/b") == listens
