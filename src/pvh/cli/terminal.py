"""Where a guest's console meets the host: bytes out to standard output, bytes in from a terminal, a pipe or a file."""

from __future__ import annotations

import os
import stat

from pvh.errors import UsageError
from pvh.hints import TYPE_CHECKING
from pvh.host import FLAGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pvh.devices.typed import Typed

LEAVE = b"\x1d"  # ^], as telnet, xl console and virsh console have it

_CHUNK = 4096  # bytes of one read
_LINGER = 0.05  # seconds in which the rest of a line is waited for
_BACKGROUND = 0.5  # seconds between looks whether we are in the foreground again


def write_all(data: bytes) -> None:
    """Write to standard output, keeping nothing back: even a kill loses nothing. Wait where it would block."""
    while data:
        try:
            data = data[os.write(1, data) :]
        except BlockingIOError:
            import select  # rare: somebody who shares our standard output set O_NONBLOCK on it

            select.select((), (1,), ())


def stamped(write: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Return a writer that puts the host's local time, to the millisecond, before each line."""
    from time import localtime, strftime, time_ns  # only for --timestamps

    inside = False

    def stamp() -> bytes:
        seconds, fraction = divmod(time_ns(), 1_000_000_000)
        return f"{strftime('%Y-%m-%dT%H:%M:%S', localtime(seconds))}.{fraction // 1_000_000:03} ".encode()

    def lines(data: bytes) -> None:
        nonlocal inside
        out = bytearray()
        while data:
            line, newline, data = data.partition(b"\n")
            out += (b"" if inside else stamp()) + line + newline
            inside = not newline
        write(bytes(out))

    return lines


def open_input(path: str | None, *, taken: bool) -> int | None:
    """Return the descriptor that the guest's input comes from: a file's, standard input's, or None for no input.

    Standard input counts unless it is closed, /dev/null, or a terminal that we are in the background of.

    path   of a file; None and `-` are standard input
    taken  standard input has another use already, such as the kernel
    Raises UsageError for a file that cannot be read.
    """
    if path and path != "-":
        try:
            return os.open(path, os.O_RDONLY | FLAGS)
        except OSError as error:
            raise UsageError(f"cannot read the input: {(error.strerror or '').lower()}", path=path) from None
    if taken:
        return None
    try:
        status = os.fstat(0)
    except OSError:
        return None
    return None if _is_null(status) or in_background(0) else 0


def _is_null(status: os.stat_result) -> bool:
    """Return whether it is the device that has nothing to say; Windows gives devices no numbers."""
    try:
        return stat.S_ISCHR(status.st_mode) and 0 != status.st_rdev == os.stat(os.devnull).st_rdev
    except OSError:
        return False


def in_background(fd: int) -> bool:
    """Return whether a descriptor is our terminal, and another job's at the moment."""
    if not hasattr(os, "tcgetpgrp"):
        return False
    try:
        return os.tcgetpgrp(fd) != os.getpgrp()
    except OSError:
        return False


def feed(fd: int, typed: Typed, leave: Callable[[], None] | None = None, end: bytes = b"") -> None:
    """Put what can be read into typed until there is no more.

    leave  for a raw terminal, whose keys are not waited for: called when ^] is read
    end    goes to the guest behind the last line
    """
    data = b"\n"
    for data in _chunks(fd, 0.0 if leave else _LINGER):
        if leave and LEAVE in data:
            leave()
            return
        typed.put(data, wait=not leave)
    if end:
        # In a line that has begun, a terminal takes the first for the end of that.
        typed.put(end if data.endswith(b"\n") else end + end)
    typed.close()


def _chunks(fd: int, linger: float) -> Iterator[bytes]:
    """Read to the end. A line that comes in pieces is one chunk if the next comes soon enough (seconds)."""
    data = b""
    while more := _read(fd):
        data += more
        if data.endswith(b"\n") or len(data) >= _CHUNK or not linger or not _more(fd, linger):
            yield data
            data = b""
    if data:
        yield data


def _more(fd: int, seconds: float) -> bool:
    """Return whether there is more to read by then; False where that cannot be asked (Windows selects sockets only)."""
    import select

    try:
        return bool(select.select((fd,), (), (), seconds)[0])
    except OSError:
        return False


def _read(fd: int) -> bytes:
    """Read what there is, waiting for something; nothing at the end. A terminal gives us nothing in the background."""
    while True:
        try:
            return os.read(fd, _CHUNK)
        except BlockingIOError:
            import select

            select.select((fd,), (), ())
        except OSError:
            if not in_background(fd):
                return b""
            import time

            time.sleep(_BACKGROUND)
