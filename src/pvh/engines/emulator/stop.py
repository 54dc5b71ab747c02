"""Stopping a run between two blocks, and the trail of blocks executed: a block hook of machine code.

uc_emu_stop() from another thread, and the library's timeout, may execute a read-modify-write twice: the exit check sits
after each access and rewinds RIP. Called by a block hook it is exact. A hook in Python would cost 0.6 us a block, so it
is a few instructions in an executable page; where that cannot be had, runs are cut into counted pieces.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct

from pvh.engines.emulator.libunicorn import HOOK_BLOCK, Handle

RUN = 0
STOP = 1
WINDOW = 2
"""Modes of the hook: let it run, stop at the next block, stop at the next block with interrupts enabled."""

_TRAIL = 64
_TRAIL_OFFSET = 32

# System V x86-64: rdi handle, rsi address, edx size, rcx control block
# {u32 mode, u32 budget, u32 index, u32 eflags, u64 uc_emu_stop, u64 uc_reg_read, u64 trail[64]}
_HOOK = bytes.fromhex(
    "8b4108"        # mov    8(%rcx), %eax
    "488974c120"    # mov    %rsi, 32(%rcx, %rax, 8)
    "ffc0"          # inc    %eax
    "83e03f"        # and    $63, %eax
    "894108"        # mov    %eax, 8(%rcx)
    "ff4904"        # decl   4(%rcx)
    "7824"          # js     stop
    "8b01"          # mov    (%rcx), %eax
    "85c0"          # test   %eax, %eax
    "7501"          # jnz    asked
    "c3"            # out:   ret
    "83f802"        # asked: cmp $WINDOW, %eax
    "7518"          # jne    stop
    "575151"        # push   %rdi ; push %rcx ; push %rcx
    "488d510c"      # lea    12(%rcx), %rdx
    "be19000000"    # mov    $UC_X86_REG_EFLAGS, %esi
    "ff5118"        # call   *24(%rcx)
    "59595f"        # pop    %rcx ; pop %rcx ; pop %rdi
    "f6410d02"      # testb  $IF >> 8, 13(%rcx)
    "74e2"          # jz     out
    "ff6110"        # stop:  jmp *16(%rcx)
)  # fmt: skip
_RDTSC = bytes.fromhex(
    "0f31"          # rdtsc
    "48c1e220"      # shl    $32, %rdx
    "4809d0"        # or     %rdx, %rax
    "c3"            # ret
)  # fmt: skip

# Blocks between two looks at what Python has to do (signals of the main thread): 50-100 ms.
SLICE_BLOCKS = 1 << 20
# Instructions of a counted piece, where there is no hook.
SLICE_INSTRUCTIONS = 200_000


def _executable_page() -> int | None:
    """Return the address of a page with the two functions, or None where the host is no x86-64 or forbids it."""
    if platform.machine() not in {"x86_64", "AMD64"}:
        return None
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    page[: len(_HOOK)] = _HOOK
    page[256 : 256 + len(_RDTSC)] = _RDTSC
    _pages.append(page)
    return ctypes.addressof(ctypes.c_char.from_buffer(page))


_pages: list[mmap.mmap] = []
_address: list[int | None] = []


def _page() -> int | None:
    if not _address:
        _address.append(_executable_page())
    return _address[0]


def host_tsc() -> int | None:
    """Return the host's time stamp counter, which is the guest's too; None where there is none."""
    page = _page()
    if page is None:
        return None
    return int(ctypes.CFUNCTYPE(ctypes.c_uint64)(page + 256)())


class Stopper:
    """The block hook of one handle and its control block. ask() may be called from any thread."""

    def __init__(self, handle: Handle) -> None:
        page = _page()
        self.native = page is not None
        self._block = (ctypes.c_uint64 * (_TRAIL_OFFSET // 8 + _TRAIL))()
        self._mode = ctypes.c_uint32.from_buffer(self._block, 0)
        self._budget = ctypes.c_int32.from_buffer(self._block, 4)
        if page is not None:
            functions = (handle.lib.uc_emu_stop, handle.lib.uc_reg_read)
            for index, function in enumerate(functions):
                self._block[2 + index] = ctypes.cast(function, ctypes.c_void_p).value or 0
            handle.hook(HOOK_BLOCK, ctypes.c_void_p(page), user_data=ctypes.addressof(self._block))

    def ask(self, mode: int) -> None:
        """Set the mode: RUN, STOP or WINDOW. It stays until it is changed."""
        self._mode.value = mode

    def allow(self, blocks: int) -> None:
        """Let this many more blocks begin, then stop."""
        self._budget.value = blocks

    def trail(self) -> tuple[int, ...]:
        """Return the linear addresses of the last blocks, newest last."""
        if not self.native:
            return ()
        head = struct.unpack_from("<I", self._block, 8)[0]
        ring = struct.unpack_from(f"<{_TRAIL}Q", self._block, _TRAIL_OFFSET)
        # The entry code is not the guest's.
        return tuple(address for address in ring[head:] + ring[:head] if address > 0 and address >> 51 != 1)
