"""`pvh run --timeline`: the file that shows what happened, and when."""

from __future__ import annotations

import os
from collections.abc import Callable

from pvh.cli.output import write_file
from pvh.errors import UsageError
from pvh.hints import TYPE_CHECKING
from pvh.timeline.record import Timeline

if TYPE_CHECKING:
    from pvh.outcome import Outcome

_KINDS = (".html", ".json")


def kind(path: str) -> str:
    """Return what a timeline's name ends in. Raises UsageError for a name of neither kind."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _KINDS:
        raise UsageError("a timeline is .html for a browser, or .json for Perfetto", path=path)
    return suffix


class TimelineFile:
    """Keeps a run's timeline, and writes it at the end: .html for a browser, .json for Perfetto."""

    def __init__(self, path: str, kernel: str, now: Callable[[], int]) -> None:
        """Begin; now gives nanoseconds. Raises UsageError for a name of neither kind, or that cannot be written."""
        self._suffix = kind(path)
        write_file(path, b"")  # now is the time to find out
        self._path = path
        self._title = f"pvh run {kernel}"
        self.timeline = Timeline(now)

    def hearing(self, console: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """Return a console that hands on what it takes."""

        def heard(data: bytes) -> None:
            self.timeline.console(data)
            console(data)

        return heard

    def write(self, outcome: Outcome) -> None:
        """Write the file. Raises UsageError."""
        self.timeline.flush()
        if self._suffix == ".json":
            from pvh.timeline.chrome import render_chrome

            text = render_chrome(self.timeline, self._title)
        else:
            from pvh.timeline.html import render_page

            end = f"{outcome.ending} after {outcome.seconds:.2f} s on {outcome.engine}: {outcome.reason}"
            text = render_page(self.timeline, self._title, end)
        write_file(self._path, text.encode())
