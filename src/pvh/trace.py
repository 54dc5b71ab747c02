"""A trace: one JSON line for every exit of a run, written before the guest goes on: even a kill loses none."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import fields

from pvh.abi.hypercall import NAMES
from pvh.engines.exits import Hypercall
from pvh.errors import UsageError
from pvh.hints import TYPE_CHECKING
from pvh.host import FLAGS

if TYPE_CHECKING:
    from pvh.engines.exits import Exit


class Trace:
    """Writes lines to a file: {"t": seconds, "vcpu": n, "exit": kind, ...fields, "answer": value}."""

    cut: bool = False  # it could not be written to its end

    def __init__(self, path: str, now: Callable[[], int], say: Callable[[str], None] | None = None) -> None:
        """Create the file; now gives nanoseconds. Raises UsageError when it cannot be created.

        If it cannot be written to its end, say is told why, once; without one it is a RuntimeWarning.
        """
        self._path = path
        self._say = say or _warn
        try:
            self._fd: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | FLAGS, 0o644)
        except OSError as error:
            raise UsageError(f"cannot write the trace: {(error.strerror or '').lower()}", path=path) from None
        self._now = now
        self._start = now()

    def __call__(self, vcpu: int, event: Exit, answer: int | None) -> None:
        """Write one exit. A full disk ends the trace, is told of, and does not end the guest."""
        if self._fd is None:
            return
        line: dict[str, object] = {
            "t": (self._now() - self._start) // 1000 / 1e6,
            "vcpu": vcpu,
            "exit": type(event).__name__,
        }
        line |= {field.name: getattr(event, field.name) for field in fields(event)}
        if isinstance(event, Hypercall):
            line["name"] = NAMES.get(event.number, "unknown")
        if answer is not None:
            line["answer"] = answer
        data = (json.dumps(line) + "\n").encode()
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            self.close()
            self.cut = True
            self._say(f"{self._path}: the trace ends here: {(error.strerror or '').lower()}")

    def close(self) -> None:
        """Write nothing more, and give the descriptor back."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def _warn(text: str) -> None:
    from warnings import warn  # only when there is something to say

    warn(text, RuntimeWarning, stacklevel=3)
