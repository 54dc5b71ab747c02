"""Valid paths and their lengths (docs/misc/xenstore.txt; core.c, canonicalize; public/io/xs_wire.h)."""

from __future__ import annotations

import pytest

from pvh.xenstore.paths import is_below, parent, resolve
from pvh.xenstore.refusal import Refusal
from xenstore.xsclient import HOME, OK, Client

DEEP = "a" * 1000 + "/" + "b" * 1000 + "/"


@pytest.mark.parametrize("path", ["a//b", "a/", "//", "/local//x", "", "a b", "a\x01", "a.b", "é", "a:b", "@x", "a+b"])
def test_invalid_paths_are_einval(client: Client, path: str) -> None:
    assert client.read(path) == "EINVAL"
    assert client.write(path) == "EINVAL"


@pytest.mark.parametrize("path", ["a-b_c@d", "0", "Z/z/9", f"{HOME}/x"])
def test_letters_digits_and_four_punctuation_marks_are_valid(client: Client, path: str) -> None:
    assert client.write(path, b"v") == OK
    assert client.read(path) == b"v"


def test_a_relative_path_has_at_most_2048_bytes(client: Client) -> None:
    longest = DEEP + "c" * (2048 - len(DEEP))
    assert resolve(longest.encode(), HOME) == f"{HOME}/{longest}"
    assert client.read(longest) == "ENOENT"
    assert client.read(longest + "c") == "EINVAL"
    assert client.read(f"{HOME}/{longest}") == "ENOENT"
    assert client.read(f"{HOME}/{longest}c") == "EINVAL"


@pytest.mark.parametrize(("length", "valid"), [(2048, True), (2049, False), (3073, False)])
def test_a_path_outside_of_domains_has_as_many(length: int, *, valid: bool) -> None:
    path = b"/" + b"a" * (length - 1)
    if valid:
        assert resolve(path, HOME) == path.decode()
    else:
        with pytest.raises(Refusal):
            resolve(path, HOME)


def test_no_path_is_longer_than_3072_bytes(client: Client) -> None:
    assert client.read(f"/local/domain/{'1' * 5}/{'a' * 2048}") == "EACCES"
    assert client.read(f"/local/domain/{'1' * 3053}/a") == "EINVAL"


def test_special_nodes_are_for_watches_and_permissions_only(client: Client) -> None:
    assert client.read("@releaseDomain") == "EINVAL"
    assert client.watch("@releaseDomain") == OK
    assert client.perms("@releaseDomain") == "EACCES"  # n0: the toolstack's
    assert client.set_perms("@introduceDomain", "b1") == "EACCES"


@pytest.mark.parametrize(("path", "above"), [("/a/b", "/a"), ("/a", "/"), ("/", "/"), ("@releaseDomain", "/")])
def test_parents(path: str, above: str) -> None:
    assert parent(path) == above


@pytest.mark.parametrize(
    ("path", "top", "below"),
    [("/a", "/a", True), ("/a/b", "/a", True), ("/ab", "/a", False), ("/a", "/a/b", False), ("/a", "/", True)],
)
def test_a_path_is_below_itself_and_below_the_root(path: str, top: str, *, below: bool) -> None:
    assert is_below(path, top) == below
