"""Each request a guest may send: its reply, and what it is refused with (docs/misc/xenstore.txt, xenstored/core.c)."""

from __future__ import annotations

import pytest

from pvh.abi import xenstore_wire as wire
from xenstore.xsclient import HOME, OK, Client


def test_read_gives_the_value_without_a_nul(client: Client) -> None:
    client.put(f"{HOME}/name", b"demo")
    assert client.read(f"{HOME}/name") == b"demo"
    assert client.read("name") == b"demo"  # relative to /local/domain/<domid>
    assert client.read(HOME) == b""


@pytest.mark.parametrize("payload", [b"", b"name", b"\0", b"name\0\0", b"name\0x", b"/\0/\0"])
@pytest.mark.parametrize("kind", [wire.READ, wire.DIRECTORY, wire.MKDIR, wire.RM, wire.GET_PERMS])
def test_one_path_is_one_string_with_one_nul_at_its_end(client: Client, kind: int, payload: bytes) -> None:
    """core.c, onearg."""
    assert client.ask(kind, payload) == "EINVAL"


def test_directory_lists_names_in_the_order_they_came(client: Client) -> None:
    for name in ("b", "a", "c"):
        assert client.write(f"dir/{name}") == OK
    assert client.list("dir") == b"b\0a\0c\0"
    assert client.list("dir/a") == b""
    assert client.list("other") == "ENOENT"


def test_write_makes_what_is_missing_with_empty_values(client: Client) -> None:
    assert client.write("a/b/c", b"value") == OK
    assert [client.read(path) for path in ("a", "a/b", "a/b/c")] == [b"", b"", b"value"]
    assert client.write("a/b/c", b"\0bi\xffnary\0") == OK
    assert client.read("a/b/c") == b"\0bi\xffnary\0"
    assert client.write("a/b") == OK  # an empty value leaves children alone
    assert client.list("a/b") == b"c\0"


def test_write_needs_the_nul_behind_its_path(client: Client) -> None:
    assert client.ask(wire.WRITE, b"path") == "EINVAL"
    assert client.ask(wire.WRITE, b"") == "EINVAL"


def test_mkdir_leaves_what_is_there_alone(client: Client) -> None:
    client.write("a", b"value")
    assert client.mkdir("a") == OK
    assert client.read("a") == b"value"
    assert client.mkdir("x/y/z") == OK
    assert client.list("x/y") == b"z\0"


def test_rm_deletes_all_below(client: Client) -> None:
    for path in ("a/b/c", "a/d", "e"):
        client.write(path)
    assert client.rm("a") == OK
    assert client.list(HOME) == b"e\0"
    assert [client.read(path) for path in ("a", "a/b", "a/b/c", "a/d")] == ["ENOENT"] * 4


def test_rm_of_what_is_not_there_is_fine_if_its_parent_is(client: Client) -> None:
    assert client.rm("a") == OK
    assert client.rm("a/b") == "ENOENT"
    assert client.rm("/") == "EACCES"


def test_get_domain_path_is_the_base_of_relative_paths(client: Client) -> None:
    for domid in (b"0", b"1", b"007", b"65535"):
        assert client.ask(wire.GET_DOMAIN_PATH, domid + b"\0") == b"/local/domain/%d\0" % int(domid)
    assert client.ask(wire.GET_DOMAIN_PATH, b"1") == "EINVAL"
    assert client.ask(wire.GET_DOMAIN_PATH, b"none\0") == b"/local/domain/0\0"  # as atoi


@pytest.mark.parametrize("kind", [0, 8, 9, 17, 18, 19])
def test_the_toolstacks_requests_are_refused(client: Client, kind: int) -> None:
    """CONTROL, INTRODUCE, RELEASE, IS_DOMAIN_INTRODUCED, RESUME, SET_TARGET: XS_FLAG_PRIV in core.c."""
    assert client.ask(kind, b"1\0") == "EACCES"
    assert client.ask(kind, b"", tx=99) == "EACCES"


@pytest.mark.parametrize("kind", [15, 16, 20, 23, 24, 25, 26, 27, 0xFFFF, 0xFFFFFFFF])
def test_unknown_types_are_enosys(client: Client, kind: int) -> None:
    """Events and errors are none to send; 23-26 are features and quotas, which Xen has after 4.20."""
    assert client.ask(kind, b"\0") == "ENOSYS"


def test_a_reply_longer_than_a_message_is_e2big(client: Client) -> None:
    client.put(f"{HOME}/long", b"x" * (wire.PAYLOAD_MAX + 1))
    assert client.read("long") == "E2BIG"
    for number in range(600):
        client.put(f"{HOME}/dir/name-{number}")
    assert client.list("dir") == "E2BIG"


def parts(client: Client, path: str) -> list[bytes]:
    """List a node by parts as libxenstore does (tools/libs/store/xs.c, xs_directory_part)."""
    listed, generation = b"", b""
    while True:
        answer = client.ask(wire.DIRECTORY_PART, path.encode() + b"\0%d\0" % len(listed))
        assert isinstance(answer, bytes), answer
        assert len(answer) <= wire.PAYLOAD_MAX
        now, _, names = answer.partition(b"\0")
        assert generation in (b"", now)
        generation = now
        if names.endswith(b"\0\0") or names == b"\0":
            return (listed + names[:-1]).split(b"\0")[:-1]
        listed += names


@pytest.mark.parametrize("count", [0, 1, 600, 2000])
def test_directory_part_gives_long_lists_in_pieces(client: Client, count: int) -> None:
    names = [f"name-{number}" for number in range(count)]
    client.put(f"{HOME}/dir")
    for name in names:
        client.put(f"{HOME}/dir/{name}")
    assert parts(client, "dir") == [name.encode() for name in names]


def test_the_generation_of_directory_part_changes_with_the_node(client: Client) -> None:
    def generation() -> bytes:
        answer = client.ask(wire.DIRECTORY_PART, b"dir\0" + b"0\0")
        assert isinstance(answer, bytes)
        return answer.partition(b"\0")[0]

    client.write("dir/a")
    first = generation()
    assert generation() == first
    client.write("dir/a", b"child's own value")
    assert generation() == first
    client.write("dir/b")
    assert generation() != first


@pytest.mark.parametrize("payload", [b"", b"dir\0", b"dir\0" + b"0", b"dir\0" + b"0\0x\0"])
def test_directory_part_takes_a_path_and_an_offset(client: Client, payload: bytes) -> None:
    client.write("dir/a")
    assert client.ask(wire.DIRECTORY_PART, payload) == "EINVAL"


def test_an_offset_behind_the_list_is_its_end(client: Client) -> None:
    client.write("dir/a")
    answer = client.ask(wire.DIRECTORY_PART, b"dir\0" + b"999\0")
    assert isinstance(answer, bytes)
    assert answer.endswith(b"\0\0")


def test_replies_echo_type_req_id_and_tx_id(client: Client) -> None:
    client.service.answer(wire.READ, 0xDEADBEEF, 0, HOME.encode() + b"\0")
    assert client.guest.outbox.take(1 << 20)[:12] == bytes.fromhex("02000000 efbeadde 00000000")
    client.service.answer(wire.READ, 7, 0x12345678, b"a\0")
    assert client.guest.outbox.take(1 << 20) == bytes.fromhex("10000000 07000000 78563412 07000000") + b"ENOENT\0"
