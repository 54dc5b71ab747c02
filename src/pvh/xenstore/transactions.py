"""Transactions: changes that come about at once, unless what they are based on has changed.

As in xenstored (tools/xenstored/transaction.c) a transaction notes each node it touches as it then was, keeps its
changes to itself, and when it ends makes them only if each of those nodes still is the same.
"""

from __future__ import annotations

from pvh.abi.errno import EAGAIN, ENOENT, ENOMEM, ENOSPC
from pvh.hints import TYPE_CHECKING, Any
from pvh.kept import apply
from pvh.xenstore import limits
from pvh.xenstore.refusal import Refusal
from pvh.xenstore.tree import cost

if TYPE_CHECKING:
    from pvh.xenstore.tree import Node, Tree


class Transaction:
    """A view of the tree with changes of its own.

    events  paths of which watchers are to be told: True for only those who watch that very path
    memory  bytes it takes
    """

    KEPT = ("_touched", "_changes", "_owned", "_failed", "events", "memory")

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._touched: dict[str, Node | None] = {}
        self._changes: dict[str, Node | None] = {}
        self._owned: dict[int, int] = {}
        self._failed = False
        self.events: dict[str, bool] = {}
        self.memory = 0

    def get(self, path: str) -> Node | None:
        """Return a node as this transaction left it. Raises Refusal (ENOSPC) when it touches too many."""
        return self._changes[path] if path in self._changes else self._touch(path)

    def put(self, path: str, node: Node | None) -> None:
        """Set a node, None to delete it, for this transaction alone."""
        old = self.get(path)
        if path in self._changes:
            self.memory -= cost(path, old)
        self.memory += cost(path, node)
        self._changes[path] = self._tree.stamped(node) if node else None
        for each, sign in ((old, -1), (node, 1)):
            if each:
                self._owned[each.owner] = self._owned.get(each.owner, 0) + sign

    def owned(self, domid: int) -> int:
        """Return how many nodes a domain would own."""
        return self._tree.owned(domid) + self._owned.get(domid, 0)

    def before(self, path: str) -> Node | None:
        """Return a node as it was when this transaction first touched it."""
        return self._touched.get(path)

    def note(self, path: str, *, exact: bool) -> None:
        """Have watchers told of a change if it comes about; an event for all replaces one for an exact path."""
        self.events[path] = exact and self.events.get(path, True)

    def commit(self) -> None:
        """Make the changes. Raises Refusal: EAGAIN on a conflict, ENOMEM when an operation had failed half-way."""
        if self._failed:
            raise Refusal(ENOMEM)
        # Of equal nodes the generation is the same, too.
        if any(self._tree.get(path) != node for path, node in self._touched.items()):
            raise Refusal(EAGAIN)
        for path, node in self._changes.items():
            self._tree.put(path, node)

    def _touch(self, path: str) -> Node | None:
        if path not in self._touched:
            if len(self._touched) >= limits.TRANSACTION_NODES:
                self._failed = True
                raise Refusal(ENOSPC)
            self._touched[path] = node = self._tree.get(path)
            self.memory += cost(path, node)
        return self._touched[path]


class Transactions:
    """The open transactions of one client, by their id."""

    KEPT = ("_open", "_next")

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._open: dict[int, Transaction] = {}
        self._next = 1

    def apply(self, state: dict[str, Any]) -> None:
        """Go on with the transactions that were kept."""
        self._next = state["_next"]
        self._open = {number: apply(Transaction(self._tree), one) for number, one in state["_open"].items()}

    def start(self) -> int:
        """Open one and return its id. Raises Refusal (ENOSPC)."""
        if len(self._open) > limits.TRANSACTIONS:  # one more than its quota, as domain_transaction_get's user has it
            raise Refusal(ENOSPC)
        while self._next in self._open or not self._next:
            self._next = self._next + 1 & 0xFFFFFFFF
        number, self._next = self._next, self._next + 1 & 0xFFFFFFFF
        self._open[number] = Transaction(self._tree)
        return number

    def find(self, number: int) -> Transaction:
        """Return an open one. Raises Refusal (ENOENT)."""
        if number not in self._open:
            raise Refusal(ENOENT)
        return self._open[number]

    def close(self, number: int) -> None:
        """Forget one."""
        del self._open[number]

    def clear(self) -> None:
        """Forget all."""
        self._open.clear()

    @property
    def memory(self) -> int:
        """Bytes they take."""
        return sum(one.memory for one in self._open.values())
