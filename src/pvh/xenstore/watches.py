"""Watches: who wants to be told of which changes (tools/xenstored/watch.c)."""

from __future__ import annotations

from collections.abc import Iterator

from pvh.abi.errno import E2BIG, EEXIST, ENOENT
from pvh.record import dataclass
from pvh.xenstore import limits
from pvh.xenstore.paths import is_below
from pvh.xenstore.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Watch:
    """A watch on an absolute path and what is below it. base: what the watcher is told paths relative to, or ""."""

    path: str
    token: bytes
    base: str = ""

    def told(self, path: str) -> str:
        """Return how the watcher is told of a path, which it named this one by."""
        return path.removeprefix(f"{self.base}/") if self.base else path


class Watches:
    """The watches of one client, in the order they were set."""

    KEPT = ("_watches",)

    def __init__(self, limit: int | None = limits.WATCHES) -> None:
        self._watches: dict[tuple[str, bytes], Watch] = {}
        self._limit = limit

    def add(self, watch: Watch) -> None:
        """Set a watch. Raises Refusal: EEXIST, E2BIG."""
        key = (watch.path, watch.token)
        if key in self._watches:
            raise Refusal(EEXIST)
        if self._limit is not None and len(self._watches) > self._limit:  # one more than its quota, as do_watch has it
            raise Refusal(E2BIG)
        self._watches[key] = watch

    def remove(self, path: str, token: bytes) -> None:
        """Take a watch back. Raises Refusal (ENOENT)."""
        if self._watches.pop((path, token), None) is None:
            raise Refusal(ENOENT)

    def clear(self) -> None:
        """Take all back."""
        self._watches.clear()

    def of(self, path: str, *, exact: bool = False) -> Iterator[Watch]:
        """Yield the watches that a change of a path concerns. exact: not those on what is above it."""
        for watch in list(self._watches.values()):
            if watch.path == path or (not exact and is_below(path, watch.path)):
                yield watch

    @property
    def memory(self) -> int:
        """Bytes they take."""
        return sum(len(path) + len(token) for path, token in self._watches)
