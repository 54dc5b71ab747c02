"""Memory of the host's for guest RAM: of zeroes, and there once it is touched.

Linux can exchange pages under a running guest, so that a guest's memory costs what it touches. Others have a plain
area, and what is mapped on Linux is copied there. So has a Linux whose pages are larger than the guest's.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Callable

from pvh.abi.x86 import PAGE_SIZE
from pvh.hints import Any
from pvh.host import read_into
from pvh.record import dataclass

_LARGE_PAGE = 2 << 20


@dataclass(frozen=True, slots=True)
class Area:
    """Host memory: its virtual address, a view of it, and what gives it back."""

    host: int
    view: memoryview
    release: Callable[[], object]


class PlainMemory:
    """What Python has everywhere. No guards: only the checks of GuestRam keep accesses inside."""

    maps = False
    """Whether map() shares the file's pages until they are written, instead of copying them."""

    def reserve(self, gpa: int, size: int) -> Area:  # noqa: ARG002 - as the other
        """Return memory for a block at gpa; raises OSError."""
        # What is shared would be shared with forks, too. Windows knows neither flags nor fork.
        has_flags = hasattr(mmap, "MAP_ANONYMOUS")
        private: dict[str, Any] = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if has_flags else {}
        area = mmap.mmap(-1, size, **private)
        # The view keeps it; it goes with the last of its views.
        return Area(ctypes.addressof(ctypes.c_char.from_buffer(area)), memoryview(area).cast("B"), lambda: None)

    def zero(self, host: int, size: int) -> None:
        """Make whole pages zeroes."""
        ctypes.memset(host, 0, size)

    def map(self, host: int, size: int, fd: int, offset: int) -> None:
        """Put a file's bytes there, zeroes behind its end; raises OSError."""
        view = memoryview((ctypes.c_ubyte * size).from_address(host)).cast("B")
        done = read_into(fd, view, offset)
        ctypes.memset(host + done, 0, size - done)

    def forget(self, host: int, size: int) -> None:
        """Make whole pages zeroes: nothing is mapped below them."""
        self.zero(host, size)


class LinuxMemory:
    """mmap(2) and madvise(2) as Linux has them."""

    maps = True

    _FIXED, _NORESERVE, _DONTNEED = 0x10, 0x4000, 4  # asm-generic/mman-common.h and mman.h
    _FAILED = ctypes.c_void_p(-1).value

    def __init__(self) -> None:
        self._libc = libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (
            ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_longlong,
        )  # fmt: skip
        libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        self._rights = mmap.PROT_READ | mmap.PROT_WRITE
        self._lazy = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | self._NORESERVE

    def _mmap(self, address: int | None, size: int, rights: int, flags: int, file: tuple[int, int] = (-1, 0)) -> int:
        """Call mmap(2) with a file's descriptor and offset; raise OSError."""
        got = self._libc.mmap(address, size, rights, flags, *file)
        if got is None or got == self._FAILED:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return int(got)

    def reserve(self, gpa: int, size: int) -> Area:
        """Return memory for a block at gpa between two guards; raises OSError.

        A guard is one page at least that nobody can touch. What could hold a large page lies as it does for the guest,
        so that the host can back both with one.
        """
        step = _LARGE_PAGE if size >= _LARGE_PAGE else PAGE_SIZE
        whole = size + 2 * step
        start = self._mmap(None, whole, 0, self._lazy)
        host = start + PAGE_SIZE + (gpa - start - PAGE_SIZE) % step
        try:
            self.zero(host, size)
        except OSError:
            self._libc.munmap(start, whole)
            raise
        view = memoryview((ctypes.c_ubyte * size).from_address(host)).cast("B")
        return Area(host, view, lambda: self._libc.munmap(start, whole))

    def zero(self, host: int, size: int) -> None:
        """Make whole pages zeroes by giving them back; raises OSError."""
        self._mmap(host, size, self._rights, self._lazy | self._FIXED)

    def map(self, host: int, size: int, fd: int, offset: int) -> None:
        """Map whole pages of a file privately; raises OSError."""
        flags = mmap.MAP_PRIVATE | self._FIXED | self._NORESERVE
        self._mmap(host, size, self._rights, flags, (fd, offset))

    def forget(self, host: int, size: int) -> None:
        """Drop what was written over what is mapped; raises OSError."""
        if self._libc.madvise(host, size, self._DONTNEED):  # elsewhere that is a mere hint
            raise OSError(ctypes.get_errno(), "madvise")


HOST = LinuxMemory() if sys.platform == "linux" and mmap.PAGESIZE == PAGE_SIZE else PlainMemory()
