"""Surviving the cut of a file that is mapped into guest RAM.

A touch of a page that is no longer in its file raises SIGBUS, in whatever thread touched it: an engine's machine code,
a memoryview. Python runs its own handlers only between bytecodes, so the handler here is machine code (sigbus.S): it
maps a page of zeroes there, notes which, and goes on. Faults anywhere else go to whoever had the signal before. KVM
does not raise the signal; it says EFAULT, and whoever reads the page in user space then has it mended.

The handler is installed while there is something to guard. x86-64 hosts only, and only where the process may have
executable pages (SELinux's execmem may forbid it): elsewhere guard() gives None, and files are read instead of mapped.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
import threading
from functools import cache

from pvh.abi.x86 import PAGE_SIZE

_CODE = bytes.fromhex(
    "837e08027526488b46104c8d0d2f100000b9000400004d8b114c39d07206493b410872624983c118ffc975ea488b05cd0f00004883f80177"
    "097209837e08007f03c3ffe056b80d000000bf07000000488d35b20f000031d241ba080000000f055e837e08007f1eb8270000000f0550b8"
    "ba0000000f0589c65fba07000000b8ea0000000f05c34c29d048c1e80c4d8b4910f0490fab0172ed57565241515048c1e00c498d3c02be00"
    "100000ba0300000041ba320000004983c8ff4531c9b8090000000f054989c25841595a5e5f4981fa01f0ffff72aff0490fb301e94cffffff"
)
_COUNT = 1024  # slots; as in sigbus.S, like the offsets below
_PREVIOUS = PAGE_SIZE
_SLOTS = PAGE_SIZE + 64

_SA_SIGINFO = 4
_SA_ONSTACK = 0x08000000

_lock = threading.Lock()


class _Slot(ctypes.Structure):
    """A guarded range as the handler reads it: start and end are host addresses, bitmap's bits are its pages."""

    _fields_ = (("start", ctypes.c_uint64), ("end", ctypes.c_uint64), ("bitmap", ctypes.c_uint64))


class _Action(ctypes.Structure):
    """struct sigaction of glibc and musl on x86-64."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_uint64 * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class _Native:
    """The code page and the data behind it, made once in a process and never given back: a thread may be in it."""

    def __init__(self, base: int) -> None:
        self.handler = base
        self.previous = ctypes.c_uint64.from_address(base + _PREVIOUS)
        self.slots = (_Slot * _COUNT).from_address(base + _SLOTS)
        self.free = list(range(_COUNT - 1, -1, -1))
        self.old = _Action()

    def install(self) -> None:
        """Take SIGBUS."""
        _sigaction(None, self.old)
        self.previous.value = self.old.handler or 0
        _sigaction(_Action(handler=self.handler, flags=_SA_SIGINFO | _SA_ONSTACK), None)

    def uninstall(self) -> None:
        """Give SIGBUS back, unless somebody took it since: they may pass faults on to the handler."""
        now = _Action()
        _sigaction(None, now)
        if now.handler == self.handler:
            _sigaction(self.old, None)


class Guard:
    """A guarded range of host memory, size bytes long. Release it before the memory is unmapped."""

    def __init__(self, native: _Native, index: int, host: int, size: int) -> None:
        self._native = native
        self._index = index
        self.size = size
        self._bitmap = (ctypes.c_uint64 * -(-size // (64 * PAGE_SIZE)))()
        slot = native.slots[index]
        slot.bitmap = ctypes.addressof(self._bitmap)
        slot.start = host
        slot.end = host + size  # last: from here on the handler looks at the slot

    @property
    def lost(self) -> int:
        """Pages that were gone from the file when they were touched, and are zero now."""
        return sum(word.bit_count() for word in self._bitmap)

    def release(self) -> None:
        """End the guard."""
        with _lock:
            self._native.slots[self._index].end = 0
            self._native.free.append(self._index)
            if len(self._native.free) == _COUNT:
                self._native.uninstall()


def guard(host: int, size: int) -> Guard | None:
    """Guard [host, host + size), whole pages of private file mappings; None where this host has no way to."""
    with _lock:
        native = _native()
        if native is None or not native.free:
            return None
        if len(native.free) == _COUNT:
            native.install()
        return Guard(native, native.free.pop(), host, size)


@cache
def _native() -> _Native | None:
    # The handler is a system call of Linux, and the records are its C libraries'.
    if sys.platform != "linux" or os.uname().machine != "x86_64" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    size = _SLOTS + ctypes.sizeof(_Slot) * _COUNT
    rights = mmap.PROT_READ | mmap.PROT_WRITE
    base = libc.mmap(
        None, ctypes.c_size_t(size), rights, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, ctypes.c_longlong(0)
    )
    if base is None or base == ctypes.c_void_p(-1).value:
        return None
    ctypes.memmove(base, _CODE, len(_CODE))
    if libc.mprotect(ctypes.c_void_p(base), ctypes.c_size_t(PAGE_SIZE), mmap.PROT_READ | mmap.PROT_EXEC) != 0:
        libc.munmap(ctypes.c_void_p(base), ctypes.c_size_t(size))
        return None
    return _Native(base)


def _sigaction(new: _Action | None, old: _Action | None) -> None:
    ctypes.CDLL(None).sigaction(signal.SIGBUS, new and ctypes.byref(new), old and ctypes.byref(old))
