"""Machine code for what Python cannot say: reading the processor's time stamp counter."""

from __future__ import annotations

import ctypes
import mmap
import platform
from collections.abc import Callable
from functools import cache

_RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")  # rdtsc; shl rdx, 32; or rax, rdx; ret


@cache
def _page() -> mmap.mmap | None:
    """Return an executable page with the code; None where the host's architecture or policy forbids it."""
    if platform.machine() != "x86_64":
        return None
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    page.write(_RDTSC)
    return page


@cache
def rdtsc() -> Callable[[], int] | None:
    """Return a function that reads the host's time stamp counter, or None where there can be none."""
    page = _page()
    if page is None:
        return None
    return ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
