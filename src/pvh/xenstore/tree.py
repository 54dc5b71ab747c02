"""The nodes, by path, and what each domain has of them."""

from __future__ import annotations

from pvh.hints import TYPE_CHECKING, Protocol
from pvh.record import dataclass, replace
from pvh.xenstore.paths import SPECIAL
from pvh.xenstore.permissions import Permission

if TYPE_CHECKING:
    from pvh.xenstore.permissions import Permissions

_HEADER_SIZE, _PERMISSION_SIZE = 16, 8  # struct node_hdr, struct xs_permissions


@dataclass(frozen=True, slots=True)
class Node:
    """A node: value, permissions, names of its children in the order they came.

    generation  is another one after each change
    """

    permissions: Permissions
    value: bytes = b""
    children: tuple[str, ...] = ()
    generation: int = 0

    @property
    def owner(self) -> int:
        """The domain whose quota it counts in."""
        return self.permissions[0].domid

    @property
    def size(self) -> int:
        """Bytes, as xenstored counts them."""
        names = sum(map(len, self.children)) + len(self.children)
        return _HEADER_SIZE + _PERMISSION_SIZE * len(self.permissions) + len(self.value) + names


class View(Protocol):
    """The tree itself, or as a transaction sees it."""

    def get(self, path: str) -> Node | None:
        """Return a node; None if there is none."""
        ...

    def put(self, path: str, node: Node | None) -> None:
        """Set a node, as a new generation; None deletes it. Parents and children are the caller's business."""
        ...

    def owned(self, domid: int) -> int:
        """Return how many nodes a domain owns."""
        ...


def cost(path: str, node: Node | None) -> int:
    """Return what a node takes, in bytes."""
    return len(path) + (node.size if node else 0)


class Tree:
    """All nodes. There is always a root; of all nodes but the special ones the parent is there too."""

    KEPT = ("_nodes", "_generation", "_owned", "_bytes")

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._generation = 0
        self._owned: dict[int, int] = {}
        self._bytes: dict[int, int] = {}
        for path in ("/", *SPECIAL):
            self.put(path, Node((Permission(0),)))

    def get(self, path: str) -> Node | None:
        """Return a node; None if there is none."""
        return self._nodes.get(path)

    def put(self, path: str, node: Node | None) -> None:
        """Set a node, as a new generation; None deletes it."""
        self._account(path, self._nodes.pop(path, None), -1)
        if node:
            self._account(path, node, 1)
            self._nodes[path] = self.stamped(node)

    def stamped(self, node: Node) -> Node:
        """Return a node as one of the next generation."""
        self._generation += 1
        return replace(node, generation=self._generation)

    def owned(self, domid: int) -> int:
        """Return how many nodes a domain owns."""
        return self._owned.get(domid, 0)

    def bytes(self, domid: int) -> int:
        """Return what the nodes of a domain take."""
        return self._bytes.get(domid, 0)

    def _account(self, path: str, node: Node | None, sign: int) -> None:
        if node:
            self._owned[node.owner] = self.owned(node.owner) + sign
            self._bytes[node.owner] = self.bytes(node.owner) + sign * cost(path, node)
