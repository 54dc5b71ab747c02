"""Bits that running vCPUs change too: each operation is one LOCKed instruction, or the same in Python elsewhere."""

from __future__ import annotations

import ctypes
import threading

import pytest

from pvh.xen import atomics

NATIVE = (atomics.test_and_set_bit, atomics.test_and_clear_bit, atomics.exchange_byte)
PLAIN = (atomics._plain_set, atomics._plain_clear, atomics._plain_exchange)


@pytest.mark.parametrize("operations", [NATIVE, PLAIN], ids=["native", "plain"])
@pytest.mark.parametrize("bit", [0, 7, 8, 31, 32, 63, 64, 4095])
def test_bits_are_set_and_cleared_one_by_one(operations: tuple[atomics.BitOperation, ...], bit: int) -> None:
    put, clear, _ = operations
    memory = (ctypes.c_ubyte * 512)()
    at = ctypes.addressof(memory)
    assert (put(at, bit), put(at, bit), atomics.test_bit(at, bit)) == (0, 1, 1)
    assert int.from_bytes(bytes(memory), "little") == 1 << bit
    assert (clear(at, bit), clear(at, bit), atomics.test_bit(at, bit)) == (1, 0, 0)
    assert not any(memory)


@pytest.mark.parametrize("operations", [NATIVE, PLAIN], ids=["native", "plain"])
def test_a_byte_is_exchanged_alone(operations: tuple[atomics.BitOperation, ...]) -> None:
    memory = (ctypes.c_ubyte * 3)(1, 2, 3)
    assert operations[2](ctypes.addressof(memory) + 1, 0xFF) == 2
    assert bytes(memory) == b"\x01\xff\x03"


def test_no_update_of_another_thread_is_lost() -> None:
    """ctypes lets go of the interpreter's lock around the call, so these really meet."""
    memory = (ctypes.c_ubyte * 8)()
    at = ctypes.addressof(memory)

    def flip(bit: int) -> None:
        for _ in range(5001):
            operation = atomics.test_and_clear_bit if atomics.test_bit(at, bit) else atomics.test_and_set_bit
            operation(at, bit)

    threads = [threading.Thread(target=flip, args=(bit,)) for bit in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bytes(memory) == b"\x0f" + bytes(7)
