"""What is typed to a guest, on its way from a thread that reads it to the device that gives it to the guest."""

from __future__ import annotations

import threading
from collections.abc import Callable

LIMIT = 4096  # bytes that wait here; a guest that reads nothing must not have us hold a whole file


class Typed:
    """A bounded queue of bytes. One thread puts; the thread that has the guest's device takes.

    open  whether more may come: a guest that sleeps may yet be woken
    """

    def __init__(self, *, held: bool = False, limit: int = LIMIT) -> None:
        """Prepare one in which up to limit bytes wait; held: until release() there is nothing to take."""
        self._limit = limit
        self._held = held
        self._waiting = bytearray()
        self._changed = threading.Condition()
        self._tell: Callable[[], None] | None = None
        self.open = True

    def connect(self, tell: Callable[[], None]) -> None:
        """Have tell() called when there is something to take, and at the end; at once if something waits already."""
        self._tell = tell
        if self._waiting:
            tell()

    @property
    def ready(self) -> bool:
        """Whether there is something to take."""
        return bool(self._waiting) and not self._held

    def put(self, data: bytes, *, wait: bool = True) -> None:
        """Add bytes. While there is no room, wait for the guest, or drop what does not fit, as a terminal does."""
        with self._changed:
            while wait and self.open and len(self._waiting) >= self._limit:
                self._changed.wait()
            self._waiting += data if wait else data[: max(0, self._limit - len(self._waiting))]
        self._news()

    def release(self) -> None:
        """Give what waits from now on."""
        self._held = False
        self._news()

    def close(self) -> None:
        """Say that nothing more will come; whoever waits to put something waits no longer."""
        with self._changed:
            self.open = False
            self._changed.notify_all()
        self._news()

    def take(self, count: int) -> bytes:
        """Return up to count bytes; none when none wait."""
        if not self._waiting or self._held:
            return b""
        with self._changed:
            data = bytes(self._waiting[:count])
            del self._waiting[:count]
            self._changed.notify()
        return data

    def _news(self) -> None:
        if self._tell:
            self._tell()
