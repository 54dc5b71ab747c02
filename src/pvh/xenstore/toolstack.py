"""The store from outside the guest: what a toolstack does to it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from pvh.hints import TYPE_CHECKING
from pvh.xenstore.paths import resolve

if TYPE_CHECKING:
    from pvh.xenstore.permissions import Permissions
    from pvh.xenstore.store import Store
    from pvh.xenstore.watches import Watch


class Access:
    """Reads and writes the store with a toolstack's rights.

    Paths are absolute, or relative to the guest's own, /local/domain/<domid>. Invalid ones raise Refusal (EINVAL).
    """

    def __init__(self, store: Store, lock: AbstractContextManager[object], push: Callable[[], None]) -> None:
        """Take the lock for each access; call push(), holding it, when the guest may have something to read."""
        self._store = store
        self._lock = lock
        self._push = push

    def read(self, path: str) -> bytes | None:
        """Return a node's value; None if there is none."""
        with self._lock:
            node = self._store.tree.get(self._path(path))
            return node.value if node else None

    def children(self, path: str) -> tuple[str, ...]:
        """Return the names of a node's children, in the order they came."""
        with self._lock:
            node = self._store.tree.get(self._path(path))
            return node.children if node else ()

    def permissions(self, path: str) -> Permissions | None:
        """Return who may do what to a node; None if there is none."""
        with self._lock:
            node = self._store.tree.get(self._path(path))
            return node.permissions if node else None

    def write(self, path: str, value: str | bytes, permissions: Permissions = ()) -> None:
        """Set a node's value, making it if it is not there, and its permissions, if any are given."""
        data = value.encode() if isinstance(value, str) else value
        with self._lock:
            full = self._path(path)
            self._store.write(0, self._store.tree, full, data)
            if permissions:
                self._store.set_permissions(0, self._store.tree, full, permissions)
            self._push()

    def remove(self, path: str) -> bool:
        """Delete a node and all below it; return whether it was there."""
        with self._lock:
            full = self._path(path)
            if self._store.tree.get(full) is None:
                return False
            self._store.remove(0, self._store.tree, full)
            self._push()
            return True

    def watch(self, path: str, call: Callable[[str], None]) -> Watch:
        """Have call(path) called, with the lock held, when somebody changes a path or what is below it."""
        with self._lock:
            return self._store.toolstack.watch(self._path(path), call)

    def unwatch(self, watch: Watch) -> None:
        """Take a watch back. Raises Refusal (ENOENT)."""
        with self._lock:
            self._store.toolstack.unwatch(watch)

    def is_watched(self, path: str) -> bool:
        """Return whether the guest watches a node, or one above it."""
        with self._lock:
            return any(True for _ in self._store.guest.watches.of(self._path(path)))

    def _path(self, path: str) -> str:
        return resolve(path.encode(), self._store.guest.base)
