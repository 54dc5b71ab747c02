"""Vectors that KVM drops are held and tried again; none is sent twice for one request."""

from __future__ import annotations

import threading
import time

import pytest

from pvh.engines.kvm import ioctl as kvm
from pvh.engines.kvm.interrupts import Interrupts


class Apic:
    """Stands for KVM_SIGNAL_MSI: takes vectors when it is on."""

    def __init__(self) -> None:
        self.on = False
        self.there = True
        self.taken: list[tuple[int, int]] = []

    def __call__(self, _fd: int, request: int, argument: bytes) -> int:
        assert request == kvm.SIGNAL_MSI
        address, high, data, flags = kvm.MSI.unpack(argument)
        assert (address >> 20, high, flags) == (0xFEE, 0, 0), "SDM vol. 3, 11.11.1: an MSI's address"
        if not self.there:
            raise PermissionError
        if self.on:
            self.taken.append((address >> 12 & 0xFF, data))
        return int(self.on)


@pytest.fixture
def apic(monkeypatch: pytest.MonkeyPatch) -> Apic:
    made = Apic()
    monkeypatch.setattr(kvm, "call", made)
    return made


def wait_for(apic: Apic, count: int) -> None:
    limit = time.monotonic() + 2
    while len(apic.taken) < count and time.monotonic() < limit:
        time.sleep(0.002)


def test_an_apic_that_is_on_takes_it_at_once_and_no_thread_is_made(apic: Apic) -> None:
    apic.on = True
    threads = threading.active_count()
    interrupts = Interrupts(-1)
    interrupts.send(2, 0xF3)
    assert apic.taken == [(2, 0xF3)]
    assert threading.active_count() == threads
    interrupts.close()


@pytest.mark.parametrize("absent", [False, True], ids=["software-disabled", "hardware-disabled"])
def test_a_dropped_vector_arrives_later_once(apic: Apic, *, absent: bool) -> None:
    apic.there = not absent
    interrupts = Interrupts(-1)
    for _ in range(3):
        interrupts.send(4, 0x51)
    interrupts.send(2, 0x51)
    time.sleep(0.02)
    assert apic.taken == []
    apic.on = apic.there = True
    wait_for(apic, 2)
    time.sleep(0.1)
    assert sorted(apic.taken) == [(2, 0x51), (4, 0x51)]
    interrupts.close()


def test_nothing_is_sent_once_it_is_closed(apic: Apic) -> None:
    interrupts = Interrupts(-1)
    interrupts.send(0, 0x51)
    interrupts.close()
    apic.on = True
    time.sleep(0.1)
    assert apic.taken == []
