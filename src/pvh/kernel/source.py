"""Where bytes come from: a file, or memory after decompression."""

from __future__ import annotations

import os

from pvh.errors import UsageError
from pvh.hints import TYPE_CHECKING, Protocol
from pvh.host import FLAGS, pread
from pvh.record import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Callable

STANDARD_INPUT = "standard input"  # the path of a source that has no other
# What is read of a pipe or device at most, in bytes: the size of the largest kernel libxenguest would unpack.
STREAM_LIMIT = 1 << 30


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What tells whether a file is still the one that was opened (st_dev, st_ino, size in bytes, mtime in ns)."""

    device: int
    inode: int
    size: int
    mtime_ns: int


class Source(Protocol):
    """Random access to a run of bytes whose size is known."""

    @property
    def path(self) -> str:
        """The file the bytes come from, as the user named it."""
        ...

    @property
    def size(self) -> int:
        """Bytes in all."""
        ...

    def read(self, offset: int, count: int) -> bytes:
        """Return up to count bytes from offset; fewer only where the source ends."""
        ...


@dataclass(frozen=True, slots=True)
class BytesSource:
    """Bytes held in memory: a decompressed payload, standard input."""

    path: str
    data: bytes = field(repr=False, compare=False)

    @property
    def size(self) -> int:
        """Bytes in all."""
        return len(self.data)

    def read(self, offset: int, count: int) -> bytes:
        """Return up to count bytes from offset."""
        return self.data[offset : offset + count]


@dataclass(frozen=True, slots=True)
class FileSource:
    """A regular file, read with pread: a file cut short behind our back gives short reads, never SIGBUS.

    fd is the record's own, and open for as long as the record lives.
    """

    path: str
    fd: int = field(compare=False)
    identity: FileIdentity

    @property
    def size(self) -> int:
        """Bytes in all, when it was opened."""
        return self.identity.size

    def read(self, offset: int, count: int) -> bytes:
        """Return up to count bytes from offset."""
        return pread(self.fd, max(0, min(count, self.size - offset)), offset)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # at the interpreter's end there is no os
        close(self.fd)

    def changed(self) -> bool:
        """Tell whether the open file was rewritten or cut since it was opened."""
        return identify(self.fd) != self.identity


def identify(fd: int) -> FileIdentity:
    """Return what fstat says of an open file's identity."""
    stat = os.fstat(fd)
    return FileIdentity(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def open_source(path: str) -> Source:
    """Open a file for reading; `-` and whatever cannot be sought (a pipe, a terminal) are read to their end.

    Raises UsageError when there is no such file, it is a directory, or it may not be read.
    """
    try:
        fd = os.dup(0) if path == "-" else os.open(path, os.O_RDONLY | FLAGS)
        name = STANDARD_INPUT if path == "-" else path
        mode = os.fstat(fd).st_mode
        if mode & 0o170000 == 0o040000:
            os.close(fd)
            raise UsageError("is a directory", path=path, wanted="a file")
        if mode & 0o170000 == 0o100000 and path != "-":
            return FileSource(name, fd, identify(fd))
        with os.fdopen(fd, "rb") as stream:
            data = stream.read(STREAM_LIMIT + 1)
    except (OSError, ValueError) as error:  # ValueError: a name that holds a NUL
        reason = str(getattr(error, "strerror", None) or error).lower()
        raise UsageError(f"cannot read it: {reason}", path=path, hint="check the name and its permissions") from None
    if len(data) > STREAM_LIMIT:
        raise UsageError("gives more than a kernel can be", path=name, wanted=f"at most {STREAM_LIMIT} bytes")
    return BytesSource(name, data)
