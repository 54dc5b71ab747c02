"""The clocks a run can have: the host's, or one that only the guest's own execution moves (`--clock instructions`).

Whatever a guest can learn of time comes from its run's one clock: TSC, system time, timers, wall clock. So do the times
of traces and timelines.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pvh.hints import Protocol

_BLOCK_NS = 8  # a basic block of Linux has 8 instructions, and one is taken to last 1 ns
_WALLCLOCK_NS = 1_577_836_800 * 10**9  # 2020-01-01 00:00:00 UTC


class Clock(Protocol):
    """Nanoseconds of a steady clock.

    virtual  it moves by what the guest executes, and stands while nothing of the guest does
    """

    @property
    def virtual(self) -> bool:
        """Whether the host's time has no part in it."""
        ...

    def now(self) -> int:
        """Return ns since some moment; from any thread."""
        ...

    def wallclock(self) -> int:
        """Return ns since 1970, UTC."""
        ...


class HostClock:
    """The host's."""

    virtual = False

    def now(self) -> int:
        """Return ns of the host's monotonic clock."""
        return time.monotonic_ns()

    def wallclock(self) -> int:
        """Return what time it is."""
        return time.time_ns()


class InstructionClock:
    """One that counts what the guest executes, in basic blocks; and is put forward while the guest sleeps."""

    virtual = True

    def __init__(self) -> None:
        self._blocks: Callable[[], int] = int
        self._passed = 0

    def follow(self, blocks: Callable[[], int]) -> None:
        """Go on by another count of executed blocks, which begins at 0: that of a new guest."""
        self._passed = self.now()
        self._blocks = blocks

    def now(self) -> int:
        """Return ns since the clock was made."""
        return self._passed + self._blocks() * _BLOCK_NS

    def wallclock(self) -> int:
        """Return a time that is the same in every run."""
        return _WALLCLOCK_NS + self.now()

    def skip_to(self, moment: int) -> None:
        """Put the clock forward, if that is forward."""
        self._passed += max(0, moment - self.now())

    def blocks_until(self, moment: int) -> int:
        """Return how many blocks end at a moment, or just behind it; at least 1."""
        return max(1, -((self.now() - moment) // _BLOCK_NS))
