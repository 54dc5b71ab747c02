"""What Python's os has on some hosts only, and what serves instead: asked for by feature, not by a host's name."""

from __future__ import annotations

import os
from contextlib import suppress

FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""For every os.open(): no child inherits the file, and its bytes are as they are (Windows translates ends of lines)."""


def pread(fd: int, count: int, offset: int) -> bytes:
    """Return up to count bytes of a file from offset."""
    if hasattr(os, "pread"):
        return os.pread(fd, count, offset)
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, count)


def pwrite(fd: int, data: bytes | memoryview, offset: int) -> int:
    """Write into a file at offset; return how many bytes were."""
    if hasattr(os, "pwrite"):
        return os.pwrite(fd, data, offset)
    os.lseek(fd, offset, os.SEEK_SET)
    return os.write(fd, data)


def read_into(fd: int, view: memoryview, offset: int) -> int:
    """Fill a view from a file's offset; return how many bytes there were. Raises OSError."""
    done = 0
    while done < len(view):
        if hasattr(os, "preadv"):
            got = os.preadv(fd, [view[done:]], offset + done)
        else:
            piece = pread(fd, min(len(view) - done, 1 << 20), offset + done)
            got = len(piece)
            view[done : done + got] = piece
        if not got:
            break
        done += got
    return done


def anonymous_file(name: str, content: bytes = b"") -> int:
    """Return a descriptor of a new file without a name, in memory (name is for /proc) or on disk."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        import tempfile

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    while content:
        content = content[os.write(fd, content) :]
    return fd


def file_of(name: str, content: bytes) -> str:
    """Return a path that can be opened and read as content, by this process and forks of it, as long as it lives.

    A file in memory where there is such a thing, else a temporary one. It is this user's alone to write.
    """
    if hasattr(os, "memfd_create"):
        fd = anonymous_file(name, content)
        os.fchmod(fd, 0o600)
        return f"/proc/self/fd/{fd}"
    import atexit
    import tempfile

    fd, path = tempfile.mkstemp(prefix="pvh-")
    with os.fdopen(fd, "wb") as file:
        file.write(content)
    atexit.register(_remove, path, os.getpid())
    return path


def forget_file(path: str) -> None:
    """Give back what file_of() made; who has opened it keeps it."""
    if path.startswith("/proc/self/fd/"):
        os.close(int(path.rpartition("/")[2]))
    else:
        _remove(path, os.getpid())


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:  # a fork has not made it
        with suppress(OSError):  # Windows removes no open file
            os.unlink(path)
