"""Machine code for the hooks that must be fast, or must not return, and the block of memory it works on.

tests/engines/emulator/hooks.S is the source, and a test proves the bytes equal to it.
"""

from __future__ import annotations

import ctypes
import struct
import time
from functools import cache

from pvh.engines.emulator.libunicorn import Handle
from pvh.native import place, rdtsc

RUN = 0
STOP = 1
WINDOW = 2
"""What the block hook does: nothing, stop before this block, stop before this block if interrupts are enabled."""

_CODE = bytes.fromhex(
    # block: notes the address in the trail, counts the budget down, obeys the mode
    "8b4108488974c170ffc083e03f894108ff490478248b0185c07501c383f802"
    "7518575151488d510cbe19000000ff511859595ff6410d0274e2ff6110cccccccc"
    # in: calls back, then returns or leaves
    "5355504889cb4889fdff5120eb3f" + "cc" * 50
    # out: the same; to leave is to read an MSR that is intercepted, which ends the instruction as an exception would
    + "5355504c89c34889fd41ff5028837b30007416c7433000000000"
    "4889efbef8000000488d5338ff5318595d5bc3" + "cc" * 19
    # made: says where new code is, if it is not known
    + "5355415441554883ec184889fd4889cb4c8b26440fb76e0a4f8d6c2cff48c70424ffffffff4889ef4c89e6ba04000000"
    "4889e1ff5348488b3c2485c075174889f848c1e810483b4360730d488b5358480fa3027203ff53504d39ec4d89ec75bd"
    "4883c418415d415c5d5bc3"
)  # fmt: skip
_BLOCK, _IN, _OUT, _MADE = 0x00, 0x40, 0x80, 0xC0

GRANULE = 1 << 16
"""Bytes of guest memory for which code is noted together."""

_FUNCTIONS_AT = 16  # uc_emu_stop, uc_reg_read, IN callback, OUT callback
_LEAVE_AT = 48
_MSR_AT = 56
_CODE_AT = 72  # uc_vmem_translate, callback, bits, their number
_TRAIL_AT = 112
_TRAIL = 64


@cache
def _page() -> int | None:
    """Return the address of the code, or None where the host is no x86-64 or forbids it."""
    return place(_CODE)


def available() -> bool:
    """Return whether this host can have the hooks."""
    return _page() is not None


def host_tsc() -> int:
    """Return the host's time stamp counter, which the guest's is made of; nanoseconds where it cannot be read."""
    counter = rdtsc()
    return time.monotonic_ns() if counter is None else counter()


def pointer(address: int) -> ctypes.c_void_p:
    """Return a function's address as Handle.hook() takes it."""
    return ctypes.c_void_p(address)


class ControlBlock:
    """What the hooks of one processor read and write. mode may be set by any thread."""

    def __init__(self, handle: Handle) -> None:
        """Prepare one for a handle. Only where available()."""
        self._memory = (ctypes.c_uint64 * (_TRAIL_AT // 8 + _TRAIL))()
        self.address = ctypes.addressof(self._memory)
        self.mode = ctypes.c_uint32.from_buffer(self._memory, 0)
        self.budget = ctypes.c_int32.from_buffer(self._memory, 4)
        self.leave = ctypes.c_uint32.from_buffer(self._memory, _LEAVE_AT)
        self._set_functions(_FUNCTIONS_AT, handle.lib.uc_emu_stop, handle.lib.uc_reg_read)
        page = _page() or 0
        self.block_hook, self.in_hook, self.out_hook = page + _BLOCK, page + _IN, page + _OUT
        self.code_hook = page + _MADE
        self._set_functions(_CODE_AT, handle.lib.uc_vmem_translate)

    def call_back(self, on_in: object, on_out: object, leaving_msr: int) -> None:
        """Set the callbacks of IN and OUT, and the intercepted MSR by which to leave them."""
        self._set_functions(_FUNCTIONS_AT + 16, on_in, on_out)
        self._memory[_MSR_AT // 8] = leaving_msr

    def watch_code(self, callback: object, bits: int, count: int) -> None:
        """Set what is called with the guest-physical address of code in a granule whose bit is clear (host address)."""
        self._set_functions(_CODE_AT + 8, callback)
        self._memory[_CODE_AT // 8 + 2] = bits
        self._memory[_CODE_AT // 8 + 3] = count

    def _set_functions(self, offset: int, *functions: object) -> None:
        for index, function in enumerate(functions, offset // 8):
            pointer = ctypes.cast(function, ctypes.c_void_p)  # type: ignore[arg-type]
            self._memory[index] = pointer.value or 0

    def forget_trail(self) -> None:
        """Empty the trail."""
        ctypes.memset(self.address + _TRAIL_AT, 0, 8 * _TRAIL)

    def trail(self) -> tuple[int, ...]:
        """Return the addresses of the last blocks, newest last."""
        head: int = struct.unpack_from("<I", self._memory, 8)[0]
        ring: tuple[int, ...] = struct.unpack_from(f"<{_TRAIL}Q", self._memory, _TRAIL_AT)
        return tuple(address for address in ring[head:] + ring[:head] if address)
