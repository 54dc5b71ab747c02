"""Local APICs of an engine without them: who gets an inter-processor interrupt (Intel SDM vol. 3, 11.6; facts, 8)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pvh.build.cpu_state import CpuState
from pvh.devices.lapic import BASE, LocalApic
from pvh.engines.exits import MmioRead, MmioWrite
from pvh.interrupts import Interrupts

EOI, SVR, ICR, ICR_HIGH = 0xB0, 0xF0, 0x300, 0x310
SELF, ALL, OTHERS = 1 << 18, 2 << 18, 3 << 18
NMI, INIT, SIPI = 4 << 8, 5 << 8, 6 << 8


Asked = tuple[object, ...]


class Fake:
    """A machine, and a domain of three vCPUs of which one was never started: both note what is asked of them."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.processors = [SimpleNamespace(stage=stage) for stage in ("up", "up", "created")]

    def deliver(self, vcpu: int, vector: int) -> None:
        self.asked.append(("deliver", vcpu, vector))

    def nmi(self, vcpu: int) -> None:
        self.asked.append(("nmi", vcpu))

    def offline(self, vcpu: int) -> None:
        self.asked.append(("offline", vcpu))

    def online(self, vcpu: int, state: CpuState) -> None:
        self.asked.append(("online", vcpu, state.cs.base))

    def apic_init(self, vcpu: int) -> None:
        self.asked.append(("init", vcpu))

    def apic_sipi(self, vcpu: int, page: int) -> None:
        self.asked.append(("sipi", vcpu, page))


class Bench:
    """Three vCPUs, APIC ids 0, 2, 4."""

    def __init__(self, *, xen: bool) -> None:
        fake = Fake()
        self.asked = fake.asked
        machine, domain = cast("Any", fake), cast("Any", fake)
        self.interrupts = Interrupts(machine, domain if xen else None, 3, self._apic)
        for vcpu in range(3):
            self.write(vcpu, SVR, 0x1FF)

    def _apic(self, vcpu: int) -> LocalApic:
        return LocalApic(2 * vcpu, lambda: 0, lambda _: None)

    def write(self, vcpu: int, register: int, value: int) -> None:
        source = cast("Any", SimpleNamespace(index=vcpu))
        assert self.interrupts.access(source, MmioWrite(BASE + register, 4, value)) == 0

    def send(self, command: int, destination: int = 0, source: int = 0) -> list[Asked]:
        self.asked.clear()
        self.write(source, ICR_HIGH, destination << 24)
        self.write(source, ICR, command)
        return self.asked


@pytest.fixture
def xen() -> Bench:
    return Bench(xen=True)


@pytest.mark.parametrize(
    ("command", "destination", "targets"),
    [(SELF, 9, [1]), (ALL, 9, [0, 1, 2]), (OTHERS, 9, [0, 2]), (0, 4, [2]), (0, 0xFF, [0, 1, 2]), (0, 3, [])],
)
def test_a_fixed_interrupt_arrives_where_it_is_sent(
    xen: Bench, command: int, destination: int, targets: list[int]
) -> None:
    assert xen.send(command | 0x50, destination, source=1) == [("deliver", target, 0x50) for target in targets]


def test_the_lowest_priority_is_one_processor(xen: Bench) -> None:
    assert xen.send(ALL | 1 << 8 | 0x50) == [("deliver", 0, 0x50)]


def test_a_second_of_the_same_priority_waits_for_the_end_of_the_first(xen: Bench) -> None:
    xen.send(0x50, 2)
    assert xen.send(0x51, 2) == []
    xen.write(1, EOI, 0)
    assert xen.asked == [("deliver", 1, 0x51)]


def test_an_nmi_passes_the_registers(xen: Bench) -> None:
    assert xen.send(NMI, 2) == [("nmi", 1)]


def test_init_and_startup_go_to_xen(xen: Bench) -> None:
    assert xen.send(INIT | 0xC000, 2) == [("init", 1)]
    assert xen.send(INIT | 0x8000, 2) == [], "a level de-asserted is no INIT"
    assert xen.send(SIPI | 0x9A, 2) == [("sipi", 1, 0x9A)]


def test_init_resets_the_local_apic_of_a_started_vcpu_only(xen: Bench) -> None:
    xen.send(OTHERS | INIT | 0xC000)
    assert xen.send(OTHERS | 0x50) == [("deliver", 2, 0x50)], "vCPU 1's is disabled now"


def test_without_xen_a_startup_counts_once_until_an_init() -> None:
    bare = Bench(xen=False)
    assert bare.send(SIPI | 0x9A, 2) == [("online", 1, 0x9A000)]
    assert bare.send(SIPI | 0x9A, 2) == []
    assert bare.send(INIT | 0xC000, 2) == [("offline", 1)]
    assert bare.send(INIT | 0xC000, 2) == []
    assert bare.send(SIPI | 0x10, 2) == [("online", 1, 0x10000)]


def test_without_xen_the_first_processor_runs_already() -> None:
    assert Bench(xen=False).send(SIPI | 0x9A, 0) == []


def test_an_access_elsewhere_is_none_of_it(xen: Bench) -> None:
    source = cast("Any", SimpleNamespace(index=0))
    assert xen.interrupts.access(source, MmioRead(BASE - 4, 4)) is None
    assert xen.interrupts.access(source, MmioRead(BASE + 0x1000, 4)) is None
    assert xen.interrupts.access(source, MmioRead(BASE + 0x30, 4)) == 0x50014
    assert xen.interrupts.access(source, MmioRead(BASE + 0x32, 2)) == 5
