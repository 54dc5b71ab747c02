"""Random hypercalls: whatever a guest asks, nothing raises, nothing hangs, nothing grows.

PVH_HOSTILE_CALLS says how many (20 000 if it does not), PVH_HOSTILE_SEED which. A domain that ends itself is replaced,
and every 2 000 calls too. The last test prints coverage by number, operation and errno: pytest -s.
"""

from __future__ import annotations

import os
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator

import pytest

from pvh.abi import errno
from pvh.abi import hypercall as abi
from pvh.xen.dispatch import HANDLERS
from xen.guest import ARG, BUFFER, CONSOLE, RAM, SPARE, SPECIAL, TABLES, Guest

CALLS = int(os.environ.get("PVH_HOSTILE_CALLS", "20000"))
SEED = int(os.environ.get("PVH_HOSTILE_SEED", "1"))
A_LIFE = 2_000  # calls
SLOWEST = 5.0  # seconds a call may take
MOST_GROWTH = 8 << 20  # bytes that a life may leave behind

# Operations there are, by call; others come up too.
OPERATIONS = {
    abi.MEMORY_OP: 28, abi.XEN_VERSION: 12, abi.CONSOLE_IO: 3, abi.GRANT_TABLE_OP: 13, abi.VM_ASSIST: 3,
    abi.VCPU_OP: 17, abi.SCHED_OP: 8, abi.EVENT_CHANNEL_OP: 15, abi.PHYSDEV_OP: 32, abi.HVM_OP: 27,
}  # fmt: skip
SMALL = (0, 1, 2, 3, 4, 5, 8, 16, 64, 100, 128, 129, 512, 1023, 1024, 4095, 4096)
EDGES = (
    *SMALL, 0x7FF0, 0x7FFF, 0xFFFF, 1 << 16, 1 << 26, 0x7FFFFFFF, 1 << 31, 0xFFFFFFFF, 1 << 32, 1 << 40, 1 << 52,
    1 << 62, 1 << 63, (1 << 64) - 1, ARG, BUFFER, SPARE, TABLES, RAM - 1, RAM - 4, RAM, SPECIAL, CONSOLE,
    CONSOLE + 4090, ARG >> 12, RAM >> 12, SPECIAL >> 12, CONSOLE >> 12,
)  # fmt: skip


class Attacker:
    """Makes calls, and structures for them that are half right."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def value(self) -> int:
        kind = self.rng.random()
        if kind < 0.5:
            return self.rng.choice(SMALL)
        if kind < 0.9:
            return self.rng.choice(EDGES)
        return self.rng.getrandbits(64)

    def address(self) -> int:
        return self.rng.choice((ARG, ARG, ARG, BUFFER, self.value()))

    def structure(self) -> bytes:
        """Fields of all sizes, mostly of one size, aligned or not."""
        sizes = self.rng.choice(((2,), (4,), (8,), (2, 4), (2, 2, 4), (2, 6, 8), (1, 2, 4, 8)))
        data = bytearray(self.rng.randrange(2))
        while len(data) < 64:
            size = self.rng.choice(sizes) if len(sizes) > 3 else sizes[len(data) // 2 % len(sizes)]
            data += (self.value() & (1 << 8 * size) - 1).to_bytes(size, "little")
        return bytes(data)

    def call(self, guest: Guest) -> tuple[int, int, int]:
        """Make a call; return its number, operation and result."""
        number = self.rng.choice((*HANDLERS, *HANDLERS, self.rng.randrange(64), self.value()))
        operation = self.rng.randrange(OPERATIONS.get(number, 64)) if self.rng.random() < 0.9 else self.value()
        if (number, operation) == (abi.SCHED_OP, 2) and self.rng.random() < 0.9:
            operation = 3  # a shutdown ends the domain
        for place in (ARG, BUFFER):
            guest.ram.write(place, self.structure())
        bits = self.rng.choice((64, 32, 16))
        args = self.args(number, operation)
        if bits != 64:
            args = tuple(value & 0xFFFFFFFF for value in args)
        vcpu = self.rng.randrange(2)
        result = guest.raw(number if bits == 64 else number & 0xFFFFFFFF, *args, vcpu=vcpu, bits=bits)
        width = 64 if bits == 64 else 32
        assert 0 <= result < 1 << width
        return number, operation, result - (1 << width) if result >> width - 1 else result

    def args(self, number: int, operation: int) -> tuple[int, ...]:
        if number == abi.MULTICALL:
            # A list that fills memory takes a second: such ones are few.
            return (self.address(), self.value() if self.rng.random() < 0.02 else self.rng.randrange(40))
        if number == abi.VCPU_OP:
            return (operation, self.rng.choice((0, 1, self.value())), self.address())
        if number == abi.CONSOLE_IO:
            return (operation, self.value(), self.address())
        if number == abi.MEMORY_OP and self.rng.random() < 0.1:
            operation |= self.value() << 6 & (1 << 64) - 1
        return (operation, self.address(), self.value(), self.value(), self.value())


def lives(attacker: Attacker) -> Iterator[Guest]:
    """Yield the guest of each call, a new one when the last ended or grew old."""
    left = CALLS
    while left:
        guest = Guest(vcpus=2)
        guest.host.backs = lambda gpa, ram=guest.ram: attacker.rng.random() < 0.5 and ram.add(gpa) is not None
        for _ in range(min(left, A_LIFE)):
            left -= 1
            yield guest
            guest.host.tsc += attacker.rng.choice((0, 1, 10**6, 10**10))
            guest.domain.expire(attacker.rng.randrange(2))
            if not guest.domain.running:
                break
        guest.close()


def test_random_calls_neither_raise_nor_hang(capsys: pytest.CaptureFixture[str]) -> None:
    attacker = Attacker(random.Random(SEED))
    seen: Counter[tuple[str, int, str]] = Counter()
    slowest = 0.0
    for guest in lives(attacker):
        guest.said.clear()
        began = time.monotonic()
        number, operation, result = attacker.call(guest)
        slowest = max(slowest, time.monotonic() - began)
        told = errno.NAMES.get(-result, str(result)) if -4096 < result < 0 else "ok"
        seen[abi.NAMES.get(number, "none"), operation if operation < 64 else -1, told] += 1
        assert told == "ok" or told.startswith("E"), f"{number} {operation} gave {result}: no errno of Xen's"
    assert slowest < SLOWEST
    with capsys.disabled():
        if os.environ.get("PVH_HOSTILE_CALLS"):
            print(f"\n{CALLS} calls, seed {SEED}, slowest {slowest:.3f} s")
            for (name, operation, told), count in sorted(seen.items()):
                print(f"{name:18} {operation:3} {told:12} {count}")
    if CALLS >= 20_000:
        reached = {name for name, _, told in seen if told == "ok"}
        assert reached >= {abi.NAMES[number] for number in OPERATIONS if number != abi.PHYSDEV_OP}


def test_a_domain_does_not_grow() -> None:
    """What one domain keeps for a guest that asks for everything it can, again and again."""
    attacker = Attacker(random.Random(SEED + 1))
    guest = Guest(vcpus=2)
    for _ in range(1000):
        attacker.call(guest)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(2000):
            attacker.call(guest)
            guest.said.clear()
            for notes in (
                guest.host.vectors,
                guest.host.blocked,
                guest.host.woken,
                guest.host.yielded,
                guest.host.nmis,
            ):
                notes.clear()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < MOST_GROWTH
