"""Guards what start_info leads to: who writes there before having read where it is, overwrites it unknowingly."""

from __future__ import annotations

from pvh.conformance.monitor.entry_memory import Guarded, pages
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Guard:
    """Told of every load and store; see clause memory.placement. changed is told every store, too.

    fields  are not guarded, but it is told of them, too, that they were read
    read    names of what was read, each with what `now` gave at the first time
    """

    def __init__(
        self,
        guarded: tuple[Guarded, ...],
        changed: Callable[[int, int], None],
        fields: tuple[Guarded, ...] = (),
        now: Callable[[], int] = int,
    ) -> None:
        self._changed = changed
        self._guarded = list(guarded)
        self._pages = frozenset(pages(guarded))
        self._unread = [*guarded, *fields]
        self._now = now
        self.read: dict[str, int] = {}

    def loaded(self, gpa: int, size: int) -> None:
        """The kernel reads bytes: it knows now what they are the pointer to; start_info it knows by any byte of it."""
        if gpa >> 12 in self._pages or gpa + size - 1 >> 12 in self._pages:
            self._guarded = [item for item in self._guarded if not _touches(item, gpa, size)]
            for item in [item for item in self._unread if gpa < item.end and item.start < gpa + size]:
                self._unread.remove(item)
                self.read[item.name] = self._now()

    def stored(self, gpa: int, size: int) -> str:
        """The kernel writes bytes: return the name of what it does not know it overwrites, or ""."""
        self._changed(gpa, size)
        if gpa >> 12 in self._pages:
            for item in self._guarded:
                if gpa < item.end and item.start < gpa + size:
                    return item.name
        return ""


def _touches(item: Guarded, gpa: int, size: int) -> bool:
    start, end = (item.start, item.end) if not item.pointer_size else (item.pointer, item.pointer + item.pointer_size)
    return gpa < end and start < gpa + size
