"""The domain's console: a ring in the special page, and a port (facts/xen-abi.md, 4 and 11)."""

from __future__ import annotations

from pvh.abi.hypercall import EVENT_CHANNEL_OP
from xen.guest import CONSOLE, SPARE, Guest

PORT = 2


def write_ring(guest: Guest, text: bytes) -> None:
    guest.ram.write(CONSOLE + 1024, text)
    guest.put("<I", CONSOLE + 3084, len(text))


def send(guest: Guest, port: int) -> int:
    return guest.op(EVENT_CHANNEL_OP, 4, "<I", port)


def test_what_the_guest_leaves_in_the_ring_comes_out_when_it_notifies(guest: Guest) -> None:
    write_ring(guest, b"hvc0\n")
    assert not guest.said
    assert send(guest, PORT) == 0
    assert guest.said == b"hvc0\n"
    assert guest.get("<I", CONSOLE + 3080) == (5,)


def test_the_guest_is_told_that_there_is_room_again(guest: Guest) -> None:
    guest.domain.shared.map_at(SPARE >> 12)
    write_ring(guest, b"x")
    send(guest, PORT)
    assert guest.get("<B", SPARE + 0x800) == (1 << PORT,)


def test_an_empty_ring_is_no_news(guest: Guest) -> None:
    guest.domain.shared.map_at(SPARE >> 12)
    assert send(guest, PORT) == 0
    assert guest.get("<B", SPARE + 0x800) == (0,)


def test_a_guest_may_close_its_console_port(guest: Guest) -> None:
    """Output that is collected at the end must not stumble over it."""
    write_ring(guest, b"last words")
    assert guest.op(EVENT_CHANNEL_OP, 3, "<I", PORT) == 0
    assert send(guest, PORT) == -22
    guest.domain.serve_console()
    assert guest.said == b"last words"


def test_the_ring_is_connected(guest: Guest) -> None:
    """connection is 1 until a console daemon has it, and it has."""
    assert guest.get("<B", CONSOLE + 3088) == (0,)


def test_a_vcpu_without_a_vector_is_not_interrupted(guest: Guest) -> None:
    guest.domain.events.mark(0)
    assert (guest.host.vectors, guest.host.injected) == ([], [])


def test_an_unbound_virq_is_dropped(guest: Guest) -> None:
    guest.domain.events.raise_virq(0, 0)
    assert not guest.domain.events.wants_upcall(0)
