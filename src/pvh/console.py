"""A guest's console as a program uses it: what it says, waited for; what is typed to it."""

from __future__ import annotations

import re
import threading
import time

from pvh import given
from pvh.devices.typed import Typed
from pvh.errors import Timeout, UsageError
from pvh.guest_ended import GuestEnded
from pvh.hints import TYPE_CHECKING
from pvh.record import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvh.outcome import Outcome

Pattern = str | bytes | re.Pattern[bytes]
"""What expect() looks for: text (UTF-8) or bytes as they stand, or a compiled pattern of bytes."""

_PATTERN = 'text, bytes, or a compiled pattern of bytes, as re.compile(rb"...") makes'
_KEPT = 16 << 20  # bytes of what the guest said; of more the oldest are forgotten
_SHOWN = 400  # bytes of it that an error shows


@dataclass(frozen=True, slots=True)
class Match:
    """What expect() found.

    before  what the guest said before it, and nobody had read
    text    what matched
    groups  the pattern's groups, None for one that took no part; of text and bytes there are none
    index   which of the patterns it was, from 0

    >>> with pvh.boot(pvh.demo_path()) as guest:
    ...     found = guest.console.expect("refused", re.compile(rb"start_info at (0x[0-9a-f]+),"), timeout=10)
    >>> found.index, int(found.groups[0], 16) == guest.plan.start_info.paddr
    (1, True)
    """

    before: bytes
    text: bytes
    groups: tuple[bytes | None, ...] = ()
    index: int = 0


class Console:
    """The console of a guest. Every method may be called from any thread.

    Bytes that read() or expect() gave are not given again; `text` has all of them.

    >>> with pvh.boot(pvh.demo_path()) as guest:
    ...     outcome = guest.wait(timeout=10)
    >>> "Powering off" in guest.console.text
    True
    """

    def __init__(self) -> None:
        self._said = bytearray()
        self._read = 0  # bytes of it that were read
        self._news = threading.Condition()
        self._outcome: Outcome | None = None
        self._typed = Typed()

    @property
    def text(self) -> str:
        """All that the guest has said since it started, or since the snapshot it goes on from.

        UTF-8; what is none is U+FFFD. Of more than 16 MiB the oldest are forgotten.
        """
        with self._news:
            return self._said.decode("utf-8", "replace")

    def read(self, timeout: float | None = 0.0) -> bytes:
        """Return what the guest said and nobody has read. If that is nothing, wait for something, timeout seconds long.

        None waits without a limit, as it does in all that wait; what is less than 0 is 0.

        Nothing comes back when the time is up, and when the guest has ended.

        >>> with pvh.boot(pvh.demo_path()) as guest:
        ...     first = guest.console.read(timeout=10)
        >>> len(first) > 0
        True
        """
        left = _countdown(timeout)
        with self._news:
            while self._read == len(self._said) and self._outcome is None and left() != 0:
                self._news.wait(left())
            data = bytes(self._said[self._read :])
            self._read = len(self._said)
            return data

    def expect(self, *patterns: Pattern, timeout: float | None = 30.0) -> Match:
        """Wait until the guest says one of some patterns, timeout seconds of the host's at most; return what it said.

        A match counts as soon as there is one: `[0-9]+` may be content with one digit of more that are still to come.
        The match that begins first counts, of those that begin together the pattern named first. Raises Timeout, and
        GuestEnded when the guest has ended without saying any of them; both show what it said last. UsageError for no
        pattern, or for one that is none.

        >>> with pvh.boot(pvh.demo_path(), pvh.BootOptions(cmdline="hello")) as guest:
        ...     found = guest.console.expect(re.compile(rb'line: "(.*)"'), timeout=10)
        >>> found.groups
        (b'hello',)
        """
        __tracebackhide__ = True  # pytest shows whose expectation it was, not this
        left = _countdown(timeout)
        compiled = [_compiled(pattern) for pattern in patterns]
        if not compiled:
            raise UsageError("expect() was given nothing to wait for", hint="wait() waits for the guest's end")
        with self._news:
            while True:
                match = self._find(compiled)
                if match is not None:
                    return match
                if self._outcome is not None:
                    raise GuestEnded(f"the guest ended before it said {_named(patterns)}", self._outcome, self._last())
                if left() == 0:
                    raise Timeout(f"the guest did not say {_named(patterns)} in {timeout:g} s", self._last())
                self._news.wait(left())

    def write(self, data: str | bytes) -> None:
        """Type something to the guest: text as UTF-8, with "\\n" for the Enter key. Its console takes it as it can.

        While 4096 bytes wait for a guest that reads none, wait for it. What is typed to a guest that has ended, or
        after close(), is lost.

        >>> with pvh.boot(pvh.demo_path()) as guest:
        ...     guest.console.write("the demo kernel reads nothing\\n")
        ...     guest.wait(timeout=10).ending
        'poweroff'
        """
        given.kind("what is typed", data, (str, bytes, bytearray), "text or bytes")
        data = data.encode() if isinstance(data, str) else data
        while data and self._typed.open:
            piece, data = data[:256], data[256:]
            self._typed.put(piece)

    def close(self) -> None:
        """Say that nothing more will be typed: a guest that sleeps, and that nothing else can wake, hangs then.

        >>> with pvh.boot(pvh.demo_path()) as guest:
        ...     guest.console.close()
        ...     guest.console.expect("Powering off", timeout=10).text
        b'Powering off'
        """
        self._typed.close()

    def hear(self, data: bytes) -> None:
        """Take what the guest says. For the machine."""
        with self._news:
            self._said += data
            gone = max(0, len(self._said) - _KEPT)
            del self._said[:gone]
            self._read = max(0, self._read - gone)
            self._news.notify_all()

    def end(self, outcome: Outcome) -> None:
        """Note that the guest has ended. For the machine."""
        with self._news:
            self._outcome = outcome
            self._news.notify_all()
        self._typed.close()

    def begin(self) -> Typed:
        """Begin anew, as a guest goes on from a snapshot; return what will be typed. For the machine."""
        with self._news:
            self._said.clear()
            self._read = 0
            self._outcome = None
            self._typed = Typed()
            return self._typed

    def _find(self, compiled: list[re.Pattern[bytes]]) -> Match | None:
        found = [(match, index) for index, one in enumerate(compiled) if (match := one.search(self._said, self._read))]
        if not found:
            return None
        match, index = min(found, key=lambda each: (each[0].start(), each[1]))
        before = bytes(self._said[self._read : match.start()])
        self._read = match.end()
        groups = tuple(None if group is None else bytes(group) for group in match.groups())
        return Match(before, bytes(match.group()), groups, index)

    def _last(self) -> str:
        return self._said[-_SHOWN:].decode("utf-8", "replace")


def _countdown(timeout: float | None) -> Callable[[], float | None]:
    """Return what gives the seconds that are left of a timeout: None where it has no end. Raises UsageError."""
    limit = given.seconds("timeout", timeout)
    if limit is None:
        return lambda: None
    deadline = time.monotonic() + limit
    return lambda: max(0.0, deadline - time.monotonic())


def _compiled(pattern: Pattern) -> re.Pattern[bytes]:
    given.kind("a pattern", pattern, (str, bytes, re.Pattern), _PATTERN)
    if isinstance(pattern, re.Pattern):
        given.kind("a compiled pattern", pattern.pattern, bytes, _PATTERN)
    if isinstance(pattern, str):
        pattern = pattern.encode()
    return re.compile(re.escape(pattern)) if isinstance(pattern, bytes) else pattern


def _named(patterns: tuple[Pattern, ...]) -> str:
    return " or ".join(repr(one.pattern if isinstance(one, re.Pattern) else one) for one in patterns)
