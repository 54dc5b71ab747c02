"""What `pvh check` shows of its work while it goes on."""

from __future__ import annotations

import sys

from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

    from pvh.conformance.checker import Attempt, Task

CLEAR = "\r\033[K"
_BAR = 24


def _told(task: Task, count: int) -> str:
    """Return what is tried, and what tells that the kernel booted."""
    from pvh.conformance.milestone import is_telling
    from pvh.conformance.text import printable

    if not task.way:
        return "it comes to a bad end before anything tells that it booted"
    where = ", then ".join(str(milestone) for milestone in task.way)
    when = "booted when" if is_telling(task.way) else "nothing tells that it booted; fine when"
    return f"{count} profiles; {when} {printable(where)}"


class Progress:
    """A line at a terminal, which each profile's line pushes down; elsewhere plain lines; with quiet none of those."""

    def __init__(self, *, quiet: bool) -> None:
        self._bar = sys.stderr.isatty()
        self._quiet = quiet
        self._done = 0
        self._telling = True

    def stage(self, what: str) -> None:
        """Say at a terminal what is done before there are profiles to count, or behind them."""
        if self._bar:
            print(f"{CLEAR}{what} ...", end="", file=sys.stderr, flush=True)

    def tell(self, what: Task | Attempt | str, count: int) -> None:
        """Say what is tried, and what came of each try; a text is a stage."""
        from pvh.conformance.checker import Task
        from pvh.conformance.milestone import is_telling
        from pvh.conformance.text import attempt_line

        if isinstance(what, str):
            self.stage(what)
            return
        self.clear()
        if isinstance(what, Task):
            self._telling = is_telling(what.way) or not what.way
            if not self._quiet:
                print(f"{what.kernel.path}: {_told(what, count)}", flush=True)
            return
        self._done += 1
        if not self._quiet:
            print(attempt_line(what, telling=self._telling), flush=True)
        if self._bar and self._done < count:
            filled = _BAR * self._done // count
            print(
                f"[{'#' * filled}{'.' * (_BAR - filled)}] {self._done} of {count}", end="", file=sys.stderr, flush=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Leave no line behind."""
        if self._bar:
            print(CLEAR, end="", file=sys.stderr, flush=True)
