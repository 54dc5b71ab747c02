"""Atomic bit operations on guest memory that running vCPUs change with LOCKed instructions.

A Python read-modify-write could undo a guest's update made in between. On x86-64 these are a few bytes of LOCKed
machine code in a page of their own. Where there is none, only the emulator is offered (engines/kvm/device.py), whose
vCPUs never run while Python does.
Bits are reached by aligned 32-bit words: no operand straddles a cache line, wherever a guest puts its vcpu_info.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from pvh.native import place

_BTS = bytes.fromhex("f00fab37 0f92c0 0fb6c0 c3")  # lock bts [rdi], esi; setc al; movzx eax, al; ret
_BTR = bytes.fromhex("f00fb337 0f92c0 0fb6c0 c3")  # lock btr [rdi], esi; setc al; movzx eax, al; ret
_XCHG = bytes.fromhex("89f0 8607 0fb6c0 c3")  # mov eax, esi; xchg [rdi], al; movzx eax, al; ret

BitOperation = Callable[[int, int], int]


def memory(size: int) -> tuple[memoryview, int]:
    """Return zeroed memory of our own that these operations can work on, and its address; the view keeps it alive."""
    made = (ctypes.c_ubyte * size)()
    return memoryview(made).cast("B"), ctypes.addressof(made)


def test_bit(address: int, bit: int) -> int:
    """Return a bit; a plain load is enough to read one."""
    return ctypes.c_ubyte.from_address(address + bit // 8).value >> bit % 8 & 1


def _plain_set(address: int, bit: int) -> int:
    byte = ctypes.c_ubyte.from_address(address + bit // 8)
    old = byte.value >> bit % 8 & 1
    byte.value |= 1 << bit % 8
    return old


def _plain_clear(address: int, bit: int) -> int:
    byte = ctypes.c_ubyte.from_address(address + bit // 8)
    old = byte.value >> bit % 8 & 1
    byte.value &= ~(1 << bit % 8)
    return old


def _plain_exchange(address: int, value: int) -> int:
    byte = ctypes.c_ubyte.from_address(address)
    old, byte.value = byte.value, value
    return old


def _native() -> tuple[BitOperation, BitOperation, BitOperation] | None:
    base = place(_BTS.ljust(16, b"\xcc") + _BTR.ljust(16, b"\xcc") + _XCHG.ljust(16, b"\xcc"))
    if base is None:
        return None
    kind = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint64)
    return kind(base), kind(base + 16), kind(base + 32)


test_and_set_bit, test_and_clear_bit, exchange_byte = _native() or (_plain_set, _plain_clear, _plain_exchange)
