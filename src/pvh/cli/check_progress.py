"""What `pvh check` shows of its work while it goes on."""

from __future__ import annotations

import sys

from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

    from pvh.conformance.checker import Attempt, Task

CLEAR = "\r\033[K"
_BAR = 24


class Progress:
    """A line at a terminal, which each profile's line pushes down; elsewhere plain lines; with quiet none of those."""

    def __init__(self, *, quiet: bool) -> None:
        self._bar = sys.stderr.isatty()
        self._quiet = quiet
        self._done = 0

    def stage(self, what: str) -> None:
        """Say at a terminal what is done before there are profiles to count, or behind them."""
        if self._bar:
            print(f"{CLEAR}{what} ...", end="", file=sys.stderr, flush=True)

    def tell(self, what: Task | Attempt | str, count: int) -> None:
        """Say what is tried, and what came of each try; a text is a stage."""
        from pvh.conformance.checker import Task
        from pvh.conformance.text import attempt_line, printable

        if isinstance(what, str):
            self.stage(what)
            return
        self.clear()
        if isinstance(what, Task):
            if not self._quiet:
                where = (
                    ", then ".join(str(milestone) for milestone in what.way)
                    or "... it says and does nothing (see --until)"
                )
                print(f"{what.kernel.path}: {count} profiles; booted when {printable(where)}", flush=True)
            return
        self._done += 1
        if not self._quiet:
            print(attempt_line(what), flush=True)
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
