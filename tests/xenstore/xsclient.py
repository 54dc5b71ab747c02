"""A guest's side of the protocol, without a ring: requests in, what comes out of the outbox as messages."""

from __future__ import annotations

import struct

from pvh.abi import xenstore_wire as wire
from pvh.xenstore.permissions import READ, WRITE, Permission
from pvh.xenstore.service import Service
from pvh.xenstore.store import Store

DOMID = 1
HOME = "/local/domain/1"
OK = b"OK\0"

Message = tuple[int, int, int, bytes]


def messages(stream: bytes) -> list[Message]:
    """Split what a guest was sent: type, req_id, tx_id, payload."""
    found: list[Message] = []
    while stream:
        kind, req_id, tx_id, length = struct.unpack_from(wire.HEADER, stream)
        assert length <= wire.PAYLOAD_MAX
        assert len(stream) >= wire.HEADER_SIZE + length
        found.append((kind, req_id, tx_id, stream[wire.HEADER_SIZE : wire.HEADER_SIZE + length]))
        stream = stream[wire.HEADER_SIZE + length :]
    return found


class Client:
    """A guest of a store in which it has a home it may write in, and one directory that is not its own."""

    def __init__(self) -> None:
        self.store = Store(DOMID)
        self.service = Service(self.store)
        self.guest = self.store.guest
        self.events: list[tuple[str, bytes]] = []
        self._req_id = 0
        self.put(HOME, perms=(Permission(DOMID),))
        self.put("/secret", b"hidden")
        self.put("/secret/open", b"seen", (Permission(0), Permission(DOMID, READ)))
        self.put("/secret/drop", b"", (Permission(0), Permission(DOMID, WRITE)))

    def put(self, path: str, value: bytes = b"", perms: tuple[Permission, ...] = ()) -> None:
        """Write as the toolstack."""
        self.store.write(0, self.store.tree, path, value)
        if perms:
            self.store.set_permissions(0, self.store.tree, path, perms)

    def value(self, path: str) -> bytes | None:
        """Read as the toolstack."""
        node = self.store.tree.get(path)
        return node.value if node else None

    def raw(self, kind: int, payload: bytes, tx: int = 0) -> list[Message]:
        """Ask; return all that comes."""
        self._req_id += 1
        self.service.answer(kind, self._req_id, tx, payload)
        return messages(self.guest.outbox.take(1 << 30))

    def ask(self, kind: int, payload: bytes, tx: int = 0) -> bytes | str:
        """Ask; return the reply's payload, or the error's name. Events are put aside."""
        answer: bytes | str | None = None
        for got, req_id, tx_id, data in self.raw(kind, payload, tx):
            if got == wire.WATCH_EVENT:
                assert (req_id, tx_id) == (0, 0)
                path, token, rest = data.split(b"\0")
                assert not rest
                self.events.append((path.decode(), token))
            else:
                assert answer is None
                assert (req_id, tx_id) == (self._req_id, tx)
                assert got in (kind, wire.ERROR)
                answer = data
                if got == wire.ERROR:
                    assert data.endswith(b"\0")
                    answer = data[:-1].decode()
        assert answer is not None
        return answer

    def told(self) -> list[tuple[str, bytes]]:
        """Return the events since the last time."""
        for kind, *_, data in messages(self.guest.outbox.take(1 << 30)):
            assert kind == wire.WATCH_EVENT
            path, token, _ = data.split(b"\0")
            self.events.append((path.decode(), token))
        events, self.events = self.events, []
        return events

    def read(self, path: str, tx: int = 0) -> bytes | str:
        return self.ask(wire.READ, path.encode() + b"\0", tx)

    def write(self, path: str, value: bytes = b"", tx: int = 0) -> bytes | str:
        return self.ask(wire.WRITE, path.encode() + b"\0" + value, tx)

    def mkdir(self, path: str, tx: int = 0) -> bytes | str:
        return self.ask(wire.MKDIR, path.encode() + b"\0", tx)

    def rm(self, path: str, tx: int = 0) -> bytes | str:
        return self.ask(wire.RM, path.encode() + b"\0", tx)

    def list(self, path: str, tx: int = 0) -> bytes | str:
        return self.ask(wire.DIRECTORY, path.encode() + b"\0", tx)

    def watch(self, path: str, token: bytes = b"t") -> bytes | str:
        return self.ask(wire.WATCH, path.encode() + b"\0" + token + b"\0")

    def unwatch(self, path: str, token: bytes = b"t") -> bytes | str:
        return self.ask(wire.UNWATCH, path.encode() + b"\0" + token + b"\0")

    def perms(self, path: str, tx: int = 0) -> bytes | str:
        return self.ask(wire.GET_PERMS, path.encode() + b"\0", tx)

    def set_perms(self, path: str, *perms: str, tx: int = 0) -> bytes | str:
        return self.ask(wire.SET_PERMS, "".join(f"{word}\0" for word in (path, *perms)).encode(), tx)

    def start(self) -> int:
        answer = self.ask(wire.TRANSACTION_START, b"\0")
        assert isinstance(answer, bytes), answer
        return int(answer[:-1])

    def end(self, tx: int, word: bytes = b"T") -> bytes | str:
        return self.ask(wire.TRANSACTION_END, word + b"\0", tx)
