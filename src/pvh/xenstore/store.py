"""What clients may do to the tree, under its permissions and their quotas, and who is told (tools/xenstored/core.c)."""

from __future__ import annotations

from pvh.abi.errno import EACCES, EINVAL, ENOENT, ENOSPC, EPERM
from pvh.hints import TYPE_CHECKING
from pvh.record import replace
from pvh.xenstore import limits
from pvh.xenstore.connection import Connection, Toolstack
from pvh.xenstore.paths import child, parent
from pvh.xenstore.permissions import OWNER, READ, WRITE, Permission, allowed
from pvh.xenstore.refusal import Refusal
from pvh.xenstore.transactions import Transaction
from pvh.xenstore.tree import Node, Tree

if TYPE_CHECKING:
    from pvh.xenstore.connection import Client
    from pvh.xenstore.permissions import Permissions
    from pvh.xenstore.tree import View


class Store:
    """The tree and its clients. Paths are absolute and valid; every verb raises Refusal.

    domid is that of the one who asks, and view the tree or a transaction of his.
    """

    KEPT = ("tree", "guest")

    def __init__(self, domid: int) -> None:
        """Make a store for the toolstack and one guest."""
        self.tree = Tree()
        self.toolstack = Toolstack()
        self.guest = Connection(domid, self.tree)
        self._clients: tuple[Client, ...] = (self.toolstack, self.guest)

    def node(self, domid: int, view: View, path: str, access: int = READ) -> Node:
        """Return a node to somebody who may access it so. Whoever may not is not told whether it is there."""
        node = view.get(path)
        if node is None:
            above = parent(path)
            while (there := view.get(above)) is None:
                above = parent(above)
            raise Refusal(ENOENT if allowed(there.permissions, domid) & access else EACCES)
        if allowed(node.permissions, domid) & access != access:
            raise Refusal(EACCES)
        return node

    def write(self, domid: int, view: View, path: str, value: bytes) -> None:
        """Set a node's value; make it, and what is missing above it, if it is not there."""
        if self._is_there(domid, view, path):
            self._put(domid, view, path, replace(self.node(domid, view, path, WRITE), value=value))
        else:
            self._create(domid, view, path, value)
        self._changed(view, path)

    def mkdir(self, domid: int, view: View, path: str) -> None:
        """Make a node, and what is missing above it; no news if it is there."""
        if not self._is_there(domid, view, path):
            self._create(domid, view, path, b"")
            self._changed(view, path)

    def remove(self, domid: int, view: View, path: str) -> None:
        """Delete a node and all below it. It need not be there, but its parent must."""
        if not self._is_there(domid, view, path):
            if view.get(parent(path)) is None:
                raise Refusal(ENOENT)
            return
        if path == "/":
            raise Refusal(EINVAL)
        for each in reversed(_all_below(view, path)):
            node = view.get(each)
            # Told before it is gone, as its permissions say who may be told.
            self._changed(view, each, exact=each != path)
            assert node
            view.put(each, None)
        above = view.get(parent(path))
        assert above
        name = path.rpartition("/")[2]
        left = tuple(other for other in above.children if other != name)
        view.put(parent(path), replace(above, children=left))

    def set_permissions(self, domid: int, view: View, path: str, permissions: Permissions) -> None:
        """Set a node's permissions: its owner may, and the toolstack; only the toolstack gives it to another."""
        if domid and len(permissions) > limits.PERMISSIONS:
            raise Refusal(ENOSPC)
        if permissions[0].domid not in (client.domid for client in self._clients):
            raise Refusal(ENOENT)  # there is no such domain
        node = self.node(domid, view, path, WRITE | OWNER)
        if domid and permissions[0].domid != node.owner:
            raise Refusal(EPERM)
        self._put(domid, view, path, replace(node, permissions=permissions))
        self._changed(view, path, before=node)

    def commit(self, domid: int, transaction: Transaction) -> None:
        """Make a transaction's changes, and tell who watches."""
        if domid and transaction.owned(domid) > max(limits.NODES, self.tree.owned(domid)):
            raise Refusal(ENOSPC)
        transaction.commit()
        for path, exact in transaction.events.items():
            self._changed(self.tree, path, exact=exact, before=transaction.before(path))

    def _is_there(self, domid: int, view: View, path: str) -> bool:
        """Return whether a node is there that the domain may write, or whether it may make it."""
        try:
            self.node(domid, view, path, WRITE)
        except Refusal as refusal:
            if refusal.error != ENOENT:
                raise
            return False
        return True

    def _create(self, domid: int, view: View, path: str, value: bytes) -> None:
        """Make a node and its missing parents: they have the permissions of the one above, a guest's its ownership."""
        missing = [path]
        while view.get(parent(missing[-1])) is None:
            missing.append(parent(missing[-1]))
        if domid and view.owned(domid) + len(missing) > limits.NODES:
            raise Refusal(ENOSPC)
        above = view.get(parent(missing[-1]))
        assert above
        permissions = above.permissions
        if domid:
            permissions = (Permission(domid, permissions[0].access), *permissions[1:])
        names = [each.rpartition("/")[2] for each in missing]
        made = [Node(permissions, value), *(Node(permissions, b"", (name,)) for name in names[:-1])]
        grown = replace(above, children=(*above.children, names[-1]))
        if domid and any(node.size > limits.NODE_SIZE for node in (*made, grown)):
            raise Refusal(ENOSPC)
        for each, node in zip((*missing, parent(missing[-1])), (*made, grown), strict=True):
            view.put(each, node)

    def _put(self, domid: int, view: View, path: str, node: Node) -> None:
        if domid and node.size > limits.NODE_SIZE:
            raise Refusal(ENOSPC)
        view.put(path, node)

    def _changed(self, view: View, path: str, *, exact: bool = False, before: Node | None = None) -> None:
        """Tell who watches a path; of what a transaction changes, when it is committed.

        Whoever may read the node, could before, or may read its parent, is told (tools/xenstored/watch.c).
        """
        if isinstance(view, Transaction):
            view.note(path, exact=exact)
            return
        now = view.get(path)
        concerned = [now, view.get(parent(path)) if now else None, before]
        for client in self._clients:
            if any(node and allowed(node.permissions, client.domid) & READ for node in concerned):
                for watch in client.watches.of(path, exact=exact):
                    client.tell(watch, path)


def _all_below(view: View, path: str) -> list[str]:
    """Return a path and all below it, each after its parent."""
    found = [path]
    for each in found:
        node = view.get(each)
        if node:
            found += [child(each, name) for name in node.children]
    return found
