"""Timeline: exits and console lines of a run with their times, in memory."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from pvh.abi.hypercall import NAMES
from pvh.engines.exits import (
    Exit,
    Halt,
    Hypercall,
    MmioRead,
    MmioWrite,
    MsrRead,
    MsrWrite,
    PortIn,
    PortOut,
)
from pvh.record import dataclass

KINDS = ("hypercall", "port", "MMIO", "MSR", "halt", "end")
_MOST = 500_000  # exits that are kept, some 100 bytes each; those behind are counted only
_LONGEST_LINE = 400  # bytes of a console line that are kept
_KEPT_LINES = 5_000


@dataclass(slots=True)
class Moment:
    """One exit: nanoseconds from the run's start, vCPU, kind (an index of KINDS), what it was."""

    at: int
    vcpu: int
    kind: int
    what: str


@dataclass(slots=True)
class Line:
    """One line of the console, without its end: nanoseconds from the run's start to its first byte."""

    at: int
    text: str


class Timeline:
    """Takes what a Machine tells its watch and its console. now gives nanoseconds."""

    def __init__(self, now: Callable[[], int] = time.monotonic_ns) -> None:
        """Begin now."""
        self._now = now
        self._start = now()
        self._part = bytearray()
        self._part_at = 0
        self.moments: list[Moment] = []
        self.lines: list[Line] = []
        self.counts: Counter[tuple[int, str]] = Counter()

    @property
    def length(self) -> int:
        """Nanoseconds from the start to the last thing that was seen, at least 1."""
        last = (self.moments[-1].at if self.moments else 0, self.lines[-1].at if self.lines else 0)
        return max(1, *last)

    @property
    def vcpus(self) -> tuple[int, ...]:
        """The vCPUs that exits came from."""
        return tuple(sorted({moment.vcpu for moment in self.moments}))

    @property
    def dropped(self) -> int:
        """Exits that were counted, but not kept."""
        return self.counts.total() - len(self.moments)

    def watch(self, vcpu: int, event: Exit, answer: int | None) -> None:  # noqa: ARG002 - a Watch
        """Take an exit."""
        kind, what = name(event)
        self.counts[kind, what] += 1
        if len(self.moments) < _MOST:
            self.moments.append(Moment(self._now() - self._start, vcpu, kind, what))

    def console(self, data: bytes) -> None:
        """Take what the guest said."""
        at = self._now() - self._start
        for piece in data.splitlines(keepends=True):
            if not self._part:
                self._part_at = at
            self._part += piece[: _LONGEST_LINE - len(self._part)]
            if piece.endswith(b"\n"):
                self.flush()

    def flush(self) -> None:
        """Take what was said of a line that has not ended."""
        text = self._part.decode(errors="replace").strip("\r\n")
        if text and len(self.lines) < _KEPT_LINES:
            self.lines.append(Line(self._part_at, text))
        self._part.clear()


def name(event: Exit) -> tuple[int, str]:
    """Return an exit's kind, an index of KINDS, and what it was, in few words."""
    if isinstance(event, Hypercall):
        return 0, NAMES.get(event.number, f"hypercall {event.number}")
    if isinstance(event, (PortIn, PortOut)):
        return 1, f"{'in' if isinstance(event, PortIn) else 'out'} {event.port:#x}"
    if isinstance(event, (MmioRead, MmioWrite)):
        return 2, f"{'read' if isinstance(event, MmioRead) else 'write'} {event.address & ~0xFFF:#x}"
    if isinstance(event, (MsrRead, MsrWrite)):
        return 3, f"{'rdmsr' if isinstance(event, MsrRead) else 'wrmsr'} {event.index:#x}"
    return (4, "hlt") if isinstance(event, Halt) else (5, type(event).__name__.lower())
