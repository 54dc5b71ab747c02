"""Machine code for what Python cannot say. Each piece gets an executable page of its own, for the process's life."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable
from functools import cache

_RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")  # rdtsc; shl rdx, 32; or rax, rdx; ret
_pages: list[mmap.mmap] = []


def place(code: bytes) -> int | None:
    """Put x86-64 code where it can be executed and return its address; None where the host or its policy forbids it.

    The code is called as the System V ABI has it, which Windows has not.
    """
    if not hasattr(os, "uname") or os.uname().machine not in ("x86_64", "amd64"):
        return None
    try:
        page = mmap.mmap(-1, len(code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    page.write(code)
    _pages.append(page)
    return ctypes.addressof(ctypes.c_char.from_buffer(page))


def available() -> bool:
    """Return whether machine code can be placed here."""
    return rdtsc() is not None


@cache
def rdtsc() -> Callable[[], int] | None:
    """Return a function that reads the host's time stamp counter, or None where there can be none."""
    address = place(_RDTSC)
    return None if address is None else ctypes.CFUNCTYPE(ctypes.c_uint64)(address)
