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

from fuzz.attacker import OPERATIONS, Attacker, Places
from pvh.abi import errno
from pvh.abi import hypercall as abi
from xen.guest import ARG, BUFFER, CONSOLE, RAM, SPARE, SPECIAL, TABLES, Guest

CALLS = int(os.environ.get("PVH_HOSTILE_CALLS", "20000"))
SEED = int(os.environ.get("PVH_HOSTILE_SEED", "1"))
A_LIFE = 2_000  # calls
SLOWEST = 5.0  # seconds a call may take
MOST_GROWTH = 8 << 20  # bytes that a life may leave behind

PLACES = Places(RAM, ARG, BUFFER, (SPARE, TABLES, SPECIAL, CONSOLE, CONSOLE + 4090))


def make(attacker: Attacker, guest: Guest) -> tuple[int, int, int]:
    """Make a call; return its number, operation and result."""
    bits = attacker.rng.choice((64, 32, 16))
    call = attacker.call(bits)
    guest.ram.write(ARG, call.structure)
    guest.ram.write(BUFFER, call.buffer)
    result = guest.raw(call.number, *call.args, vcpu=attacker.rng.randrange(2), bits=bits)
    width = 64 if bits == 64 else 32
    assert 0 <= result < 1 << width
    return call.number, call.operation, result - (1 << width) if result >> width - 1 else result


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
    attacker = Attacker(random.Random(SEED), PLACES)
    seen: Counter[tuple[str, int, str]] = Counter()
    slowest = 0.0
    for guest in lives(attacker):
        guest.said.clear()
        began = time.monotonic()
        number, operation, result = make(attacker, guest)
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
    attacker = Attacker(random.Random(SEED + 1), PLACES)
    guest = Guest(vcpus=2)
    for _ in range(1000):
        make(attacker, guest)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(2000):
            make(attacker, guest)
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


@pytest.mark.parametrize("call", [(abi.GRANT_TABLE_OP, 0, 0, 0x7FFFFFFF), (abi.MULTICALL, 0, 0x7FFFFFFF)], ids=str)
def test_a_list_longer_than_memory_ends_there_or_with_the_run(call: tuple[int, ...]) -> None:
    """Seed 0x401d90e6 of tests/fuzz/run_any_calls.py: Xen goes on with such a call after other vCPUs ran, we do not."""
    guest = Guest(bits=32)
    guest.host.stopping = True
    began = time.monotonic()
    assert guest.call(*call) == 0
    assert time.monotonic() - began < 0.5, "nothing was done"
    guest.host.stopping = False
    assert guest.call(*call) == -errno.EFAULT
    guest.close()
