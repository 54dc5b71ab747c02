"""Clients of the store: a guest, and the toolstack."""

from __future__ import annotations

from collections.abc import Callable

from pvh.abi.xenstore_wire import PAYLOAD_MAX
from pvh.hints import TYPE_CHECKING, Protocol
from pvh.xenstore import limits
from pvh.xenstore.outbox import Outbox
from pvh.xenstore.paths import domain_path
from pvh.xenstore.transactions import Transactions
from pvh.xenstore.watches import Watch, Watches

if TYPE_CHECKING:
    from pvh.xenstore.tree import Tree


class Client(Protocol):
    """Who has watches, and is told."""

    domid: int
    watches: Watches

    def tell(self, watch: Watch, path: str) -> None:
        """Tell of a change of a path, absolute, that one of its watches concerns."""
        ...


class Connection:
    """A guest, and what the store keeps for it."""

    KEPT = ("watches", "transactions", "outbox")

    def __init__(self, domid: int, tree: Tree) -> None:
        self.domid = domid
        self.base = domain_path(domid)
        self.watches = Watches()
        self.transactions = Transactions(tree)
        self.outbox = Outbox()
        self._tree = tree

    @property
    def memory(self) -> int:
        """Bytes that the host keeps for it: what it may have of them is limits.MEMORY."""
        return self._tree.bytes(self.domid) + self.watches.memory + self.transactions.memory + self.outbox.memory

    def tell(self, watch: Watch, path: str) -> None:
        """Queue an event. Dropped when it is longer than a message, or when the guest leaves too much unread."""
        payload = watch.told(path).encode("ascii") + b"\0" + watch.token + b"\0"
        if len(payload) <= PAYLOAD_MAX and self.memory + len(payload) <= limits.MEMORY:
            self.outbox.event(payload)

    def reset(self) -> None:
        """Forget watches, transactions, and what was not sent."""
        self.watches.clear()
        self.transactions.clear()
        self.outbox.clear()


class Toolstack:
    """Domain 0, the host's own side: it is called instead of sent messages, and may do everything."""

    domid = 0

    def __init__(self) -> None:
        self.watches = Watches(limit=None)
        self._calls: dict[bytes, Callable[[str], None]] = {}
        self._tokens = 0

    def watch(self, path: str, call: Callable[[str], None]) -> Watch:
        """Have call(path) called for changes of a path and what is below it."""
        self._tokens += 1
        watch = Watch(path, b"%d" % self._tokens)
        self.watches.add(watch)
        self._calls[watch.token] = call
        return watch

    def unwatch(self, watch: Watch) -> None:
        """Take a watch back. Raises Refusal (ENOENT)."""
        self.watches.remove(watch.path, watch.token)
        del self._calls[watch.token]

    def tell(self, watch: Watch, path: str) -> None:
        """Call who watches; somebody told before may have taken the watch back."""
        call = self._calls.get(watch.token)
        if call:
            call(path)
