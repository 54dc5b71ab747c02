"""Corrupted rings and hostile places, with the real services behind them (issue 4, acceptance 5).

Whatever is in the pages of console and xenstore, also if it changes while it is read, and wherever a guest has Xen's
own pages, vcpu_info and areas put: nothing raises, nothing goes on for ever, no byte is written that is not the
service's.
"""

from __future__ import annotations

import random
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from pvh.abi import hypercall as abi
from pvh.abi import memory, vcpu_op
from pvh.abi import xenstore_wire as wire
from pvh.devices.console import IN_CONS, IN_PROD, OUT_CONS, OUT_PROD, OUT_SIZE, Console
from pvh.devices.xenstore import XenstoreRing
from pvh.xen.xenstore import XENSTORE_PAGE
from pvh.xenstore import limits
from pvh.xenstore.connection import Connection
from xen.guest import CONSOLE, RAM, SPARE, SPECIAL, TABLES, Guest

PAGE = XENSTORE_PAGE.start
XENSTORE, CONSOLE_PORT = 1, 2
APART = (
    0,
    1,
    2,
    15,
    16,
    17,
    1023,
    1024,
    1025,
    2047,
    2048,
    2049,
    4096,
    1 << 16,
    1 << 31,
    (1 << 32) - 1,
    (1 << 32) - 1024,
)
LENGTHS = (0, 1, 15, 16, 100, 1008, 1024, 4095, 4096, 4097, 1 << 16, 1 << 31, (1 << 32) - 1)
CONSOLES = (OUT_CONS, OUT_PROD, IN_CONS, IN_PROD)
XENSTORES = (wire.REQ_CONS, wire.REQ_PROD, wire.RSP_CONS, wire.RSP_PROD)
GROWTH = 4 << 20


def send(guest: Guest, port: int) -> None:
    assert guest.op(abi.EVENT_CHANNEL_OP, 4, "<I", port) == 0


def elsewhere(guest: Guest, page: int) -> bytes:
    """Return all special pages but one."""
    raw = guest.ram.read(SPECIAL, 0x8000)
    assert raw
    return raw[: page - SPECIAL] + raw[page - SPECIAL + 4096 :]


def index(rng: random.Random) -> int:
    """Return an index near where others are, or anywhere."""
    return (rng.choice((0, 0xFFFFFFFF, 5, rng.getrandbits(32))) + rng.choice((1, -1)) * rng.choice(APART)) & 0xFFFFFFFF


@pytest.mark.parametrize("seed", range(4))
def test_a_console_page_of_anything(seed: int) -> None:
    rng, guest = random.Random(seed), Guest()
    guest.ram.write(CONSOLE, rng.randbytes(4096))
    before = elsewhere(guest, CONSOLE)
    for _ in range(1500):
        base = rng.getrandbits(32)
        for offset in rng.sample(CONSOLES, rng.randint(0, 4)):
            guest.put(
                "<I", CONSOLE + offset, (base + rng.choice(APART)) & 0xFFFFFFFF if rng.random() < 0.5 else index(rng)
            )
        guest.host.typing += rng.randbytes(rng.choice((0, 1, 1024, 3000)) if len(guest.host.typing) < 5000 else 0)
        page = guest.ram.read(CONSOLE, 4096)
        assert page
        said, typed = len(guest.said), len(guest.host.typing)
        send(guest, CONSOLE_PORT)
        after = guest.ram.read(CONSOLE, 4096)
        assert after
        outs = struct.unpack_from("<II", page, OUT_CONS)
        assert len(guest.said) - said == min(outs[1] - outs[0] & 0xFFFFFFFF, OUT_SIZE)
        consumed, produced = struct.unpack_from("<II", page, IN_CONS)
        room = max(0, 1024 - (produced - consumed & 0xFFFFFFFF))
        assert typed - len(guest.host.typing) == min(room, typed)
        assert after[1024:IN_PROD] == page[1024:IN_PROD], "the guest's own ring and index stay"
        assert after[OUT_PROD:] == page[OUT_PROD:]
    assert elsewhere(guest, CONSOLE) == before
    guest.close()


def header(rng: random.Random) -> bytes:
    kind = rng.choice((*range(24), 0xFFFF, 1 << 31, rng.getrandbits(32)))
    return struct.pack(
        wire.HEADER, kind, rng.getrandbits(32), rng.choice((0, 1, 7, rng.getrandbits(32))), rng.choice(LENGTHS)
    )


def request(rng: random.Random) -> bytes:
    """Return a message that is whole, one whose length lies, or part of one."""
    paths = (
        b"a\0",
        b"a/b\0",
        b"/local/domain/1/data\0",
        b"@releaseDomain\0",
        b"/" * 4000,
        b"\0\0\0",
        b"\xff\xfe\0",
        b"",
    )
    payload = rng.choice(paths) + rng.choice((b"", b"t\0", b"T\0", rng.randbytes(rng.choice((1, 50, 900)))))
    whole = (
        struct.pack(wire.HEADER, rng.choice(range(23)), rng.getrandbits(32), rng.choice((0, 0, 1)), len(payload))
        + payload
    )
    kind = rng.random()
    if kind < 0.7:
        return whole[: wire.RING_SIZE]
    if kind < 0.85:
        return whole[: rng.randrange(len(whole))][: wire.RING_SIZE]
    return header(rng)


def put(guest: Guest, data: bytes) -> None:
    """Write into the request ring, whoever's bytes are there."""
    (produced,) = guest.get("<I", PAGE + wire.REQ_PROD)
    for at, byte in enumerate(data):
        guest.ram.write(PAGE + (produced + at) % wire.RING_SIZE, bytes((byte,)))
    guest.put("<I", PAGE + wire.REQ_PROD, produced + len(data) & 0xFFFFFFFF)


def step(guest: Guest, rng: random.Random) -> None:
    """Send a message or nonsense, read replies or not, now and then lose count, and reconnect if it broke."""
    put(guest, request(rng))
    if rng.random() < 0.8:
        guest.put("<I", PAGE + wire.RSP_CONS, *guest.get("<I", PAGE + wire.RSP_PROD))
    if rng.random() < 0.05:
        guest.put("<I", PAGE + rng.choice(XENSTORES), index(rng))
    if rng.random() < 0.02:
        guest.ram.write(PAGE + rng.choice((0, 1024, 2048)), rng.randbytes(1024))
        guest.ram.write(PAGE + wire.CONNECTION, bytes(4))
    before = guest.ram.read(PAGE, 4096)
    send(guest, XENSTORE)
    after = guest.ram.read(PAGE, 4096)
    assert before
    assert after
    if struct.unpack_from("<I", before, wire.CONNECTION)[0] != wire.RECONNECT:
        assert after[: wire.RSP] == before[: wire.RSP], "the guest's ring stays"
        assert after[wire.REQ_PROD : wire.RSP_PROD] == before[wire.REQ_PROD : wire.RSP_PROD], "and its indexes"
        assert after[wire.ERROR_FIELD + 4 :] == before[wire.ERROR_FIELD + 4 :]
    if guest.get("<I", PAGE + wire.ERROR_FIELD)[0] and rng.random() < 0.5:
        guest.put("<I", PAGE + wire.CONNECTION, wire.RECONNECT)


@pytest.mark.parametrize("seed", range(4))
def test_a_xenstore_page_of_anything(seed: int) -> None:
    rng, guest = random.Random(seed), Guest()
    before = elsewhere(guest, PAGE)
    slowest = 0.0
    for _ in range(1500):
        began = time.monotonic()
        step(guest, rng)
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 5.0
    assert elsewhere(guest, PAGE) == before
    guest.put("<I", PAGE + wire.CONNECTION, wire.RECONNECT)
    send(guest, XENSTORE)
    assert guest.get("<4I", PAGE + wire.REQ_CONS) == (0, 0, 0, 0), "it can begin anew"
    assert guest.get("<II", PAGE + wire.CONNECTION) == (wire.CONNECTED, wire.ERROR_NONE)
    put(guest, struct.pack(wire.HEADER, wire.READ, 9, 0, 6) + b"domid\0")
    send(guest, XENSTORE)
    assert guest.ram.read(PAGE + wire.RSP, 17) == struct.pack(wire.HEADER, wire.READ, 9, 0, 1) + b"1"
    guest.close()


def test_a_xenstore_ring_of_nonsense_does_not_grow() -> None:
    rng, guest = random.Random(99), Guest()
    for _ in range(200):
        step(guest, rng)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(600):
            step(guest, rng)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < GROWTH + limits.MEMORY
    guest.close()


class Tree:
    """What a connection needs of the tree."""

    def bytes(self, _domid: int) -> int:
        return 0


def test_indexes_that_go_back_while_requests_are_answered_do_not_keep_us() -> None:
    """Another vCPU winds req_cons back and takes the replies, as fast as we serve: serving one notification ends."""
    page = bytearray(4096)
    connection = Connection(1, Tree())  # type: ignore[arg-type]
    answered = 0

    def answer(kind: int, req_id: int, tx_id: int, payload: bytes) -> None:
        nonlocal answered
        answered += 1
        assert answered <= wire.RING_SIZE // wire.HEADER_SIZE, "more than a ring holds"
        connection.outbox.reply(kind, req_id, tx_id, payload)
        struct.pack_into("<I", page, wire.REQ_CONS, 0)
        page[wire.RSP_CONS : wire.RSP_CONS + 4] = page[wire.RSP_PROD : wire.RSP_PROD + 4]

    ring = XenstoreRing(memoryview(page), connection, answer, lambda: None)
    struct.pack_into("<I", page, wire.REQ_PROD, wire.RING_SIZE)
    ring.serve()
    assert answered


@pytest.mark.parametrize("service", ["console", "xenstore"])
def test_a_page_that_changes_all_the_time(service: str) -> None:
    """Another thread, as another vCPU would, writes indexes and contents while the service reads them."""
    rng = random.Random(7)
    guest = Guest()
    page = CONSOLE if service == "console" else PAGE
    offsets = CONSOLES if service == "console" else (*XENSTORES, wire.CONNECTION)
    stop = threading.Event()

    def disturb() -> None:
        mine = random.Random(8)
        while not stop.is_set():
            guest.put("<I", page + mine.choice(offsets), mine.choice((1, index(mine))))
            guest.ram.write(page + mine.randrange(2000), mine.randbytes(16))

    thread = threading.Thread(target=disturb)
    before = elsewhere(guest, page)
    thread.start()
    try:
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            guest.host.typing[:] = rng.randbytes(600)
            said = len(guest.said)
            send(guest, CONSOLE_PORT if service == "console" else XENSTORE)
            assert len(guest.said) - said <= OUT_SIZE
    finally:
        stop.set()
        thread.join()
    assert elsewhere(guest, page) == before
    guest.close()


def test_a_console_whose_indexes_change_as_its_bytes_are_taken() -> None:
    """Each index is read once: what it says later bounds nothing."""
    page = bytearray(4096)
    view = memoryview(page)
    said: list[bytes] = []

    def take(data: bytes) -> None:
        said.append(data)
        struct.pack_into("<II", page, OUT_CONS, 0, 0xFFFFFFFF)

    def give(count: int) -> bytes:
        assert count <= 1024
        struct.pack_into("<II", page, IN_CONS, 77, 0x80000000)
        return bytes(count)

    console = Console(view, take, give)
    struct.pack_into("<IIII", page, IN_CONS, 0, 5, 10, 20)
    assert console.drain()
    assert console.fill()
    assert list(map(len, said)) == [10]
    assert struct.unpack_from("<I", page, OUT_CONS) == (20,)
    assert struct.unpack_from("<I", page, IN_PROD) == (5 + 1019,)


PLACES = (
    0, 0xFC0, TABLES, TABLES + 0x3000, RAM - 4096, RAM - 64, RAM - 48, RAM - 40, RAM - 32, RAM - 8, RAM - 1, RAM,
    SPECIAL - 1, SPECIAL, PAGE, PAGE + 2000, PAGE + 2048, CONSOLE, CONSOLE + 3072, CONSOLE + 4032, CONSOLE + 4095,
    SPECIAL + 0x8000, 0xFEE00000, 0xFEE00300, 0xFC000000, 0xFC000FF8, 0xFC002000, SPARE, SPARE + 0x800, SPARE + 0xA00,
    1 << 32, (1 << 40) - 64, 1 << 40, 1 << 52, (1 << 63) - 8, 1 << 63, (1 << 64) - 64, (1 << 64) - 1,
)  # fmt: skip

Put = Callable[[Guest, int, int], int]


def put_info(guest: Guest, vcpu: int, gpa: int) -> int:
    guest.put("<QII", 0x8000, gpa >> 12, gpa & 0xFFF, 0)
    return guest.call(abi.VCPU_OP, vcpu_op.REGISTER_VCPU_INFO, vcpu, 0x8000)


def put_area(operation: int) -> Put:
    def registered(guest: Guest, vcpu: int, gpa: int) -> int:
        guest.put("<Q", 0x8000, gpa)
        return guest.call(abi.VCPU_OP, operation, vcpu, 0x8000)

    return registered


def put_page(space: int) -> Put:
    def mapped(guest: Guest, index: int, gpa: int) -> int:
        chosen = 0 if space == memory.XENMAPSPACE_SHARED_INFO else index
        guest.put(memory.ADD_TO_PHYSMAP_64, 0x8000, abi.DOMID_SELF, 0, space, chosen, gpa >> 12)
        return guest.call(abi.MEMORY_OP, memory.ADD_TO_PHYSMAP, 0x8000)

    return mapped


PUTS: dict[str, Put] = {
    "vcpu_info": put_info,
    "runstate": put_area(vcpu_op.REGISTER_RUNSTATE_MEMORY_AREA),
    "runstate, physical": put_area(vcpu_op.REGISTER_RUNSTATE_PHYS_AREA),
    "time": put_area(vcpu_op.REGISTER_VCPU_TIME_MEMORY_AREA),
    "time, physical": put_area(vcpu_op.REGISTER_VCPU_TIME_PHYS_AREA),
    "shared_info": put_page(memory.XENMAPSPACE_SHARED_INFO),
    "grant frame": put_page(memory.XENMAPSPACE_GRANT_TABLE),
}


def use(guest: Guest) -> None:
    """Have everything that lies somewhere be written: events, unmasking, runstates, timers, both services."""
    for vcpu in range(guest.domain.vcpus):
        for port in (XENSTORE, CONSOLE_PORT):
            guest.domain.events.set_pending(port)
            guest.domain.events.unmask(port)
        guest.domain.enter_runstate(vcpu, 1)
        guest.domain.enter_runstate(vcpu, 0)
        guest.domain.expire(vcpu)
    guest.domain.serve_console()
    guest.domain.xenstore.serve()
    guest.domain.shared.refresh()


@pytest.fixture
def two() -> Iterator[Guest]:
    made = Guest(vcpus=2)
    yield made
    made.close()


@pytest.mark.parametrize("kind", PUTS)
@pytest.mark.parametrize("gpa", PLACES, ids=hex)
def test_each_thing_at_each_place(two: Guest, kind: str, gpa: int) -> None:
    result = PUTS[kind](two, 1, gpa)
    assert result in (0, -14, -16, -22, -6)
    use(two)
    assert two.call(abi.XEN_VERSION, 0) >> 16 == 4


@pytest.mark.parametrize("seed", range(8))
def test_all_things_on_top_of_each_other(seed: int) -> None:
    """One page holds rings, shared_info, grant frames, areas and page tables at once, and frames go away meanwhile."""
    rng, guest = random.Random(seed), Guest(vcpus=2)
    guest.host.backs = lambda gpa: guest.ram.add(gpa) is not None
    for _ in range(150):
        gpa = rng.choice(PLACES[1:]) + rng.choice((0, 0, 8, 64, -8))
        result = PUTS[rng.choice(tuple(PUTS))](guest, rng.randrange(2), gpa & (1 << 64) - 1)
        assert result <= 0
        if rng.random() < 0.2:
            guest.put("<HHIQ", 0x8000, abi.DOMID_SELF, 0, 0, rng.choice((SPARE, PAGE, CONSOLE, RAM - 4096)) >> 12)
            guest.call(abi.MEMORY_OP, memory.REMOVE_FROM_PHYSMAP, 0x8000)
        use(guest)
        guest.host.injected.clear()
    assert guest.call(abi.XEN_VERSION, 0) >> 16 == 4
    guest.close()
