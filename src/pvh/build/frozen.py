"""Guest RAM as it was at one moment: a file that nobody changes, which any number of guests map privately.

A guest that rests on it shares every page it does not write with the file and with all others; what it writes is its
own, and can be dropped at once (mmap(2), MAP_PRIVATE; madvise(2), MADV_DONTNEED). Holes of the file are zeroes.
"""

from __future__ import annotations

import os
import weakref

from pvh.build.populated import populated
from pvh.errors import EngineError
from pvh.hints import TYPE_CHECKING
from pvh.host import anonymous_file, pwrite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvh.build.ram import GuestRam

_ZEROES = bytes(64 << 10)


class Frozen:
    """The contents of RAM: (gpa, size) of each block, one behind the other in the file.

    The file must keep its length while a guest rests on it: one in memory is sealed, one of the boot cache is replaced
    but never changed.
    """

    def __init__(self, fd: int, places: tuple[tuple[int, int], ...]) -> None:
        """Take a file over; it is closed when nobody has this any more."""
        self.fd = fd
        self.places = places
        self._closed = weakref.finalize(self, os.close, fd)

    @property
    def size(self) -> int:
        """Bytes of RAM."""
        return sum(size for _, size in self.places)

    @property
    def allocated(self) -> int:
        """Bytes that the file takes: what of RAM was not zeroes."""
        stat = os.fstat(self.fd)
        return stat.st_blocks * 512 if hasattr(stat, "st_blocks") else stat.st_size

    def offsets(self) -> Iterator[tuple[int, int, int]]:
        """Yield (gpa, size, offset in the file) of each block."""
        offset = 0
        for gpa, size in self.places:
            yield gpa, size, offset
            offset += size

    def extents(self) -> Iterator[tuple[int, int]]:
        """Yield (gpa, size) of what may be other than zeroes, as the file system knows it."""
        for gpa, size, offset in self.offsets():
            for start, end in _data(self.fd, offset, offset + size):
                yield gpa + start - offset, end - start


def freeze(ram: GuestRam, fd: int | None = None) -> Frozen:
    """Copy RAM into a file, by default one in memory. No vCPU runs. Raises EngineError when the host has no room."""
    sealed = fd is None
    try:
        if fd is None:
            fd = anonymous_file("guest RAM")
        frozen = Frozen(fd, tuple((block.gpa, block.size) for block in ram.blocks))
        os.ftruncate(fd, frozen.size)
        begins = {gpa: offset for gpa, _, offset in frozen.offsets()}
        for gpa, size in populated(ram):
            block = ram.block(gpa, size)
            view = ram.view(gpa, size)
            assert block is not None
            assert view is not None
            _write(fd, view, begins[block.gpa] + gpa - block.gpa)
        if sealed:
            _seal(fd)
    except OSError as error:
        raise EngineError(f"the host cannot keep the guest's memory: {(error.strerror or '').lower()}") from None
    return frozen


def _seal(fd: int) -> None:
    """Forbid every change of a file in memory; one on disk has no name that anybody could change it by."""
    if hasattr(os, "memfd_create"):
        import fcntl

        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)


def _write(fd: int, view: memoryview, offset: int) -> None:
    """Write what is not zeroes."""
    for at in range(0, len(view), len(_ZEROES)):
        piece = view[at : at + len(_ZEROES)]
        if bytes(piece) != _ZEROES[: len(piece)]:
            pwrite(fd, piece, offset + at)


def _data(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the runs of a part of a file that are no holes (lseek(2), SEEK_DATA): all of it where nobody knows."""
    if not hasattr(os, "SEEK_DATA"):
        yield start, end
        return
    while start < end:
        try:
            start = os.lseek(fd, start, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        if start >= end:
            return
        stop = min(end, os.lseek(fd, start, os.SEEK_HOLE))
        yield start, stop
        start = stop
