"""Ctrl-C in a command that has not taken SIGINT for something better, as `pvh run` does.

It is raised as KeyboardInterrupt, which whoever calls back from C, or cleans up after a fork, may swallow. So the
second one ends the process at once; and where nothing has to be cleaned up, the first one does.
"""

from __future__ import annotations

import os

from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    import signal as _signal
    from types import FrameType
else:
    import _signal  # as in pvh.__main__

STATUS = 130
_STDERR = 2  # of print() nothing may be used in a signal handler: it may be in it
_came = 0
_farewell: str | None = None


def take() -> None:
    """Have Ctrl-C end the command that runs. What we were started to ignore stays ignored."""
    if _signal.getsignal(_signal.SIGINT) != _signal.SIG_IGN:
        _signal.signal(_signal.SIGINT, _interrupted)


def give_back() -> None:
    """Have Ctrl-C end the process without a word: its work is done."""
    if _signal.getsignal(_signal.SIGINT) != _signal.SIG_IGN:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


def end_at_once(farewell: str = "") -> None:
    """Have the first Ctrl-C end the process that took it: nothing it made would be left behind, or is worth more.

    farewell  goes to standard error before it is said
    """
    global _farewell  # noqa: PLW0603  a process has one Ctrl-C
    _farewell = farewell


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    """Standard output is not flushed: who should read it may not, and would be waited for."""
    global _came  # noqa: PLW0603
    _came += 1
    if _came == 1 and _farewell is None:
        raise KeyboardInterrupt
    if _came == 1:
        os.write(_STDERR, f"{_farewell}pvh: interrupted\n".encode())
    os._exit(STATUS)
