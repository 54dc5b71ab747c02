"""From a guest's request to its reply: the wire's side of the store (tools/xenstored/core.c, process_message).

Refused as Xen 4.20's xenstored refuses a guest: what only the toolstack may ask for is EACCES, unknown types, among
them the feature and quota requests of later versions, are ENOSYS.
"""

from __future__ import annotations

from collections.abc import Callable

from pvh.abi import xenstore_wire as wire
from pvh.abi.errno import E2BIG, EACCES, EBUSY, EINVAL, ENOENT, ENOMEM, ENOSYS
from pvh.hints import TYPE_CHECKING
from pvh.xenstore import limits, permissions
from pvh.xenstore.paths import domain_path, resolve
from pvh.xenstore.refusal import Refusal
from pvh.xenstore.transactions import Transaction
from pvh.xenstore.watches import Watch

if TYPE_CHECKING:
    from pvh.xenstore.store import Store
    from pvh.xenstore.tree import View

_OK = b"OK\0"
_TOOLSTACK_ONLY = frozenset(
    {wire.CONTROL, wire.INTRODUCE, wire.RELEASE, wire.IS_DOMAIN_INTRODUCED, wire.RESUME, wire.SET_TARGET}
)
_WITHOUT_TRANSACTION = frozenset({wire.WATCH, wire.UNWATCH})  # tx_id is not looked at
_GROWING = frozenset({wire.WRITE, wire.MKDIR, wire.SET_PERMS, wire.WATCH, wire.TRANSACTION_START})


class Service:
    """Answers one guest's requests; replies and events go to its outbox."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._guest = store.guest
        self._tx_id = 0  # of the request that is being answered
        self._handlers: dict[int, Callable[[View, bytes], bytes]] = {
            wire.DIRECTORY: self._directory,
            wire.READ: self._read,
            wire.GET_PERMS: self._get_perms,
            wire.WATCH: self._watch,
            wire.UNWATCH: self._unwatch,
            wire.TRANSACTION_START: self._transaction_start,
            wire.TRANSACTION_END: self._transaction_end,
            wire.GET_DOMAIN_PATH: self._get_domain_path,
            wire.WRITE: self._write,
            wire.MKDIR: self._mkdir,
            wire.RM: self._rm,
            wire.SET_PERMS: self._set_perms,
            wire.RESET_WATCHES: self._reset_watches,
            wire.DIRECTORY_PART: self._directory_part,
        }

    def answer(self, kind: int, req_id: int, tx_id: int, payload: bytes) -> None:
        """Carry a request out and queue its reply, which follows the events that it caused."""
        self._tx_id = tx_id
        try:
            reply = self._carry_out(kind, tx_id, payload)
        except Refusal as refusal:
            kind, reply = wire.ERROR, wire.ERRORS[refusal.error].encode() + b"\0"
        self._guest.outbox.reply(kind, req_id, tx_id, reply)
        if kind == wire.WATCH:
            # Every watch fires once at first, and then for what comes: after its reply.
            watch = self._watch_of(payload)
            self._guest.tell(watch, watch.path)

    def _carry_out(self, kind: int, tx_id: int, payload: bytes) -> bytes:
        if kind in _TOOLSTACK_ONLY:
            raise Refusal(EACCES)
        handler = self._handlers.get(kind)
        if handler is None:
            raise Refusal(ENOSYS)
        view: View = self._store.tree
        if tx_id and kind not in _WITHOUT_TRANSACTION:
            view = self._guest.transactions.find(tx_id)
        grows = kind in _GROWING or (isinstance(view, Transaction) and kind != wire.TRANSACTION_END)
        if grows and self._guest.memory >= limits.MEMORY:
            raise Refusal(ENOMEM)
        reply = handler(view, payload)
        if len(reply) > wire.PAYLOAD_MAX:
            raise Refusal(E2BIG)
        return reply

    def _path(self, path: bytes, *, special: bool = False) -> str:
        return resolve(path, self._guest.base, special=special)

    def _only_path(self, payload: bytes, *, special: bool = False) -> str:
        return self._path(_only_string(payload), special=special)

    def _read(self, view: View, payload: bytes) -> bytes:
        return self._store.node(self._guest.domid, view, self._only_path(payload)).value

    def _directory(self, view: View, payload: bytes) -> bytes:
        return _names(self._store.node(self._guest.domid, view, self._only_path(payload)).children)

    def _directory_part(self, view: View, payload: bytes) -> bytes:
        """Answer with the generation, then names from an offset on; an empty name ends the last part."""
        strings = _strings(payload)
        if len(strings) != 2:
            raise Refusal(EINVAL)
        node = self._store.node(self._guest.domid, view, self._path(strings[0]))
        generation = b"%d\0" % node.generation
        rest = _names(node.children)[_number(strings[1]) :]
        room = wire.PAYLOAD_MAX - len(generation) - 1
        part = rest if len(rest) <= room else rest[: rest.rfind(b"\0", 0, room) + 1]
        return generation + part + (b"\0" if part == rest else b"")

    def _write(self, view: View, payload: bytes) -> bytes:
        path, nul, value = payload.partition(b"\0")
        if not nul:
            raise Refusal(EINVAL)
        self._store.write(self._guest.domid, view, self._path(path), value)
        return _OK

    def _mkdir(self, view: View, payload: bytes) -> bytes:
        self._store.mkdir(self._guest.domid, view, self._only_path(payload))
        return _OK

    def _rm(self, view: View, payload: bytes) -> bytes:
        self._store.remove(self._guest.domid, view, self._only_path(payload))
        return _OK

    def _get_perms(self, view: View, payload: bytes) -> bytes:
        node = self._store.node(self._guest.domid, view, self._only_path(payload, special=True))
        return b"".join(f"{one}\0".encode() for one in node.permissions)

    def _set_perms(self, view: View, payload: bytes) -> bytes:
        strings = _strings(payload)
        wanted = permissions.parse(strings[1:])
        if not wanted:
            raise Refusal(EINVAL)
        path = self._path(strings[0], special=True)
        self._store.set_permissions(self._guest.domid, view, path, wanted)
        return _OK

    def _watch_of(self, payload: bytes) -> Watch:
        strings = _strings(payload)
        if len(strings) != 2:
            raise Refusal(EINVAL)
        path, token = strings
        relative = path[:1] not in (b"/", b"@")
        return Watch(self._path(path, special=True), token, self._guest.base if relative else "")

    def _watch(self, _view: View, payload: bytes) -> bytes:
        self._guest.watches.add(self._watch_of(payload))
        return _OK

    def _unwatch(self, _view: View, payload: bytes) -> bytes:
        watch = self._watch_of(payload)
        self._guest.watches.remove(watch.path, watch.token)
        return _OK

    def _reset_watches(self, _view: View, _payload: bytes) -> bytes:
        self._guest.watches.clear()
        self._guest.transactions.clear()
        return _OK

    def _transaction_start(self, view: View, _payload: bytes) -> bytes:
        if isinstance(view, Transaction):
            raise Refusal(EBUSY)
        return b"%d\0" % self._guest.transactions.start()

    def _transaction_end(self, view: View, payload: bytes) -> bytes:
        word = _only_string(payload)
        if word not in (b"T", b"F"):
            raise Refusal(EINVAL)
        if not isinstance(view, Transaction):
            raise Refusal(ENOENT)
        self._guest.transactions.close(self._tx_id)
        if word == b"T":
            self._store.commit(self._guest.domid, view)
        return _OK

    def _get_domain_path(self, _view: View, payload: bytes) -> bytes:
        return domain_path(_number(_only_string(payload))).encode() + b"\0"


def _strings(payload: bytes) -> list[bytes]:
    """Return the NUL-terminated strings of a payload; what is behind the last NUL does not count."""
    return payload.split(b"\0")[:-1]


def _only_string(payload: bytes) -> bytes:
    """Return the one string of a payload. Raises Refusal (EINVAL) unless there is exactly one, and nothing else."""
    if payload.find(b"\0") != len(payload) - 1 or not payload:
        raise Refusal(EINVAL)
    return payload[:-1]


def _names(children: tuple[str, ...]) -> bytes:
    return b"".join(f"{name}\0".encode() for name in children)


def _number(text: bytes) -> int:
    """Return a decimal number; digits in front count, as with atoi, none is 0."""
    digits = text[: len(text) - len(text.lstrip(b"0123456789"))][:9]
    return int(digits or b"0")
