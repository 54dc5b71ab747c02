"""A terminal whose keys are the guest's, and which always gets its old settings back."""

from __future__ import annotations

import os
import signal
import termios
import threading
from contextlib import suppress

from pvh.cli.terminal import in_background
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from pvh.hints import Any

_KEEPS_KEYS = termios.BRKINT | termios.ISTRIP | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
_LINE_EDITOR = termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN
_IFLAG, _LFLAG, _CC = 0, 3, 6

# What ends a job, or stops it for touching its terminal from the background: nothing for a guardian.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTTOU, signal.SIGTSTP)


class RawTerminal:
    """Has a terminal (a descriptor) raw inside a with statement.

    Output is still processed: lines of guests that end in a mere newline, and our own, start at the left.
    A process that is killed, or dies of a fault, restores nothing: another one, the guardian, waits for that. To be
    entered before there are threads.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved = termios.tcgetattr(fd)
        self._guardian = 0
        self._line = -1
        self._raw = True

    def __enter__(self) -> None:
        """Make it raw."""
        self._guard()
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCONT,))
        threading.Thread(target=self._stay_raw, daemon=True).start()
        self._set_raw()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Give the old settings back."""
        self._raw = False
        self._restore()
        with suppress(OSError):  # somebody may have killed it
            os.write(self._line, b".")
        os.close(self._line)
        os.waitpid(self._guardian, 0)

    def _stay_raw(self) -> None:
        """Make it raw again whenever a stopped job goes on, as its shell has set it otherwise.

        By a thread, since the main one hears of this signal only when it is woken for something else.
        """
        while True:
            signal.sigwait((signal.SIGCONT,))
            if self._raw:
                self._set_raw()

    def _set_raw(self) -> None:
        if in_background(self._fd):
            return
        raw: list[Any] = [*self._saved]
        raw[_IFLAG] &= ~_KEEPS_KEYS
        raw[_LFLAG] &= ~_LINE_EDITOR
        raw[_CC] = [*raw[_CC]]
        raw[_CC][termios.VMIN], raw[_CC][termios.VTIME] = 1, 0
        termios.tcsetattr(self._fd, termios.TCSANOW, raw)

    def _restore(self) -> None:
        try:
            termios.tcsetattr(self._fd, termios.TCSANOW, self._saved)
        except termios.error:  # the terminal is gone
            return

    def _guard(self) -> None:
        """Start the guardian: when the line to it breaks without a word, we are dead."""
        ear, self._line = os.pipe()
        self._guardian = os.fork()
        if self._guardian:
            os.close(ear)
            return
        try:
            for number in _IGNORED:
                signal.signal(number, signal.SIG_IGN)
            os.dup2(self._fd, 0)
            os.dup2(ear, 3)
            for other in 1, 2:  # whoever reads our output must see its end
                os.dup2(0, other)
            os.closerange(4, min(os.sysconf("SC_OPEN_MAX"), 1 << 20))  # macOS may say 2^63 - 1
            self._fd = 0
            if not os.read(3, 1):
                self._restore()
        finally:
            os._exit(0)
