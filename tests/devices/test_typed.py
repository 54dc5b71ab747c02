"""Input between the thread that reads it and the device that gives it on: bounded, and nobody waits for ever."""

from __future__ import annotations

import threading

from pvh.devices.typed import LIMIT, Typed


def test_bytes_come_in_order_and_as_many_as_are_asked_for() -> None:
    typed = Typed()
    typed.put(b"hello")
    typed.put(b" world")
    assert (typed.take(3), typed.take(100), typed.take(1)) == (b"hel", b"lo world", b"")


def test_it_tells_of_news_and_of_the_end() -> None:
    typed, told = Typed(), list[bool]()
    typed.put(b"early")
    typed.connect(lambda: told.append(typed.open))
    assert told == [True]
    typed.put(b"more")
    typed.close()
    assert told == [True, True, False]


def test_what_is_held_is_given_from_the_release_on() -> None:
    typed, told = Typed(held=True), list[bytes]()
    typed.put(b"early")
    typed.connect(lambda: told.append(typed.take(10)))
    typed.put(b"!")
    assert typed.take(10) == b""
    typed.release()
    assert told[-1] == b"early!"


def test_without_anything_waiting_connecting_tells_nothing() -> None:
    told = list[int]()
    Typed().connect(lambda: told.append(1))
    assert told == []


def test_a_full_queue_has_its_writer_wait_for_the_guest() -> None:
    typed = Typed()
    typed.put(bytes(LIMIT))
    writer = threading.Thread(target=typed.put, args=(b"behind",))
    writer.start()
    writer.join(0.05)
    assert writer.is_alive()
    assert typed.take(LIMIT) == bytes(LIMIT)
    writer.join(10)
    assert typed.take(10) == b"behind"


def test_keys_at_a_terminal_are_dropped_when_the_queue_is_full() -> None:
    typed = Typed()
    typed.put(bytes(LIMIT - 1), wait=False)
    typed.put(b"ab", wait=False)
    typed.put(b"c", wait=False)
    assert typed.take(2 * LIMIT) == bytes(LIMIT - 1) + b"a"
