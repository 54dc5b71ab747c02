"""The local APIC of engines that have none (Intel SDM vol. 3, chapter 11; Xen's vlapic.c where it leaves a choice)."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pvh.devices.lapic import LocalApic

ID, VERSION, TPR, PPR, EOI, LDR, DFR, SVR, ISR, TMR, IRR = (
    *(0x20, 0x30, 0x80, 0xA0, 0xB0, 0xD0, 0xE0, 0xF0, 0x100, 0x180, 0x200),
)
ESR, ICR, ICR_HIGH, LVT_TIMER, LVT_LINT0, INITIAL, CURRENT, DIVIDE = (
    *(0x280, 0x300, 0x310, 0x320, 0x350, 0x380, 0x390, 0x3E0),
)
MASKED, PERIODIC = 1 << 16, 1 << 17
BY_1 = 0xB
TICK = 10  # ns: a bus of 100 MHz, Xen's APIC_BUS_CYCLE_NS


class Bench:
    """An APIC on a clock that the test turns."""

    def __init__(self, apic_id: int = 4, *, enabled: bool = True) -> None:
        self.time = 1000
        self.due: int | None = None
        self.apic = LocalApic(apic_id, lambda: self.time, self._arm)
        if enabled:
            self.apic.write(SVR, 0x1FF)

    def _arm(self, due: int | None) -> None:
        self.due = due

    def start(self, count: int, lvt: int = 0x40, divide: int = BY_1) -> None:
        self.apic.write(DIVIDE, divide)
        self.apic.write(LVT_TIMER, lvt)
        self.apic.write(INITIAL, count)

    def pass_to(self, time: int) -> None:
        self.time = time
        self.apic.expire()

    def take(self) -> int | None:
        """What the processor takes next, if anything."""
        vector = self.apic.pending()
        if vector is not None:
            self.apic.acknowledge(vector)
        return vector


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_reset_state() -> None:
    """SDM 11.4.7.1: disabled, everything masked, flat model."""
    apic = Bench(enabled=False).apic
    assert not apic.enabled
    assert (apic.read(ID), apic.read(VERSION), apic.read(SVR), apic.read(DFR)) == (4 << 24, 0x50014, 0xFF, 0xFFFFFFFF)
    assert [apic.read(entry) for entry in range(0x320, 0x380, 0x10)] == [MASKED] * 6
    assert (apic.read(TPR), apic.read(LDR), apic.read(INITIAL), apic.read(CURRENT)) == (0, 0, 0, 0)


def test_a_vector_goes_from_requested_to_in_service_to_done(bench: Bench) -> None:
    bench.apic.accept(0xF3)
    assert bench.apic.read(IRR + 0x70) == 1 << 0x13
    assert bench.take() == 0xF3
    assert (bench.apic.read(IRR + 0x70), bench.apic.read(ISR + 0x70)) == (0, 1 << 0x13)
    bench.apic.write(EOI, 0)
    assert bench.apic.read(ISR + 0x70) == 0


def test_the_highest_vector_comes_first(bench: Bench) -> None:
    for vector in (0x31, 0xF3, 0x45):
        bench.apic.accept(vector)
    taken: list[int | None] = []
    while taken[-1:] != [None]:
        taken.append(bench.take())
        bench.apic.write(EOI, 0)
    assert taken == [0xF3, 0x45, 0x31, None]


def test_a_vector_waits_until_its_class_is_above_what_is_in_service(bench: Bench) -> None:
    """Classes are vector[7:4]: 0x4f does not interrupt 0x40, 0x50 does."""
    bench.apic.accept(0x40)
    bench.take()
    bench.apic.accept(0x4F)
    assert bench.take() is None
    bench.apic.accept(0x50)
    assert bench.take() == 0x50
    bench.apic.write(EOI, 0)
    assert bench.take() is None
    bench.apic.write(EOI, 0)
    assert bench.take() == 0x4F


def test_eoi_ends_the_highest_in_service_and_needs_none(bench: Bench) -> None:
    bench.apic.write(EOI, 0)
    for vector in (0x40, 0x50):
        bench.apic.accept(vector)
        bench.apic.acknowledge(vector)
    bench.apic.write(EOI, 0)
    assert (bench.apic.read(ISR + 0x20), bench.apic.read(PPR)) == (1, 0x40)


def test_the_task_priority_holds_its_class_and_below_back(bench: Bench) -> None:
    bench.apic.write(TPR, 0x4A)
    assert bench.apic.read(PPR) == 0x4A
    bench.apic.accept(0x4F)
    assert bench.take() is None
    bench.apic.accept(0x50)
    assert bench.take() == 0x50
    assert bench.apic.read(PPR) == 0x50


def test_the_same_vector_twice_is_taken_once(bench: Bench) -> None:
    bench.apic.accept(0x40)
    bench.apic.accept(0x40)
    assert bench.take() == 0x40
    bench.apic.write(EOI, 0)
    assert bench.take() is None


@pytest.mark.parametrize("vector", range(16))
def test_vectors_below_16_are_illegal(bench: Bench, vector: int) -> None:
    bench.apic.accept(vector)
    assert bench.take() is None


def test_what_comes_while_it_is_disabled_waits() -> None:
    """Facts, 9: an upcall vector is delivered only if the LAPIC is enabled; Xen's vlapic_set_irq sets IRR even so."""
    bench = Bench(enabled=False)
    bench.apic.accept(0xF3)
    assert bench.take() is None
    bench.apic.write(SVR, 0x1FF)
    assert bench.take() == 0xF3


def test_disabling_masks_every_lvt_entry_for_good(bench: Bench) -> None:
    """SDM 11.4.7.2: and they cannot be unmasked while it is disabled."""
    bench.apic.write(LVT_TIMER, 0x40)
    bench.apic.write(SVR, 0xFF)
    assert bench.apic.read(LVT_TIMER) == MASKED | 0x40
    bench.apic.write(LVT_TIMER, 0x41)
    assert bench.apic.read(LVT_TIMER) == MASKED | 0x41
    bench.apic.write(SVR, 0x1FF)
    assert bench.apic.read(LVT_TIMER) == MASKED | 0x41


@pytest.mark.parametrize(
    ("offset", "kept"),
    [
        (TPR, 0xFF),
        (LDR, 0xFF000000),
        (SVR, 0x3FF),
        (LVT_TIMER, 0x300FF),
        (LVT_LINT0, 0x1A7FF),
        (ICR_HIGH, 0xFF000000),
        (DIVIDE, 0xB),
        (DFR, 0xFFFFFFFF),
    ],
)
def test_reserved_bits_read_as_zero(bench: Bench, offset: int, kept: int) -> None:
    bench.apic.write(offset, 0xFFFFFFFF)
    assert bench.apic.read(offset) == kept


@pytest.mark.parametrize("offset", [ID, VERSION, PPR, ISR, TMR, IRR, CURRENT, 0x40, 0xFF0])
def test_other_registers_cannot_be_written(bench: Bench, offset: int) -> None:
    before = bench.apic.read(offset)
    bench.apic.write(offset, 0xFFFFFFFF)
    assert bench.apic.read(offset) == before


class TestTimer:
    def test_one_shot_fires_once(self, bench: Bench) -> None:
        bench.start(100)
        assert [bench.due] == [1000 + 100 * TICK]
        assert bench.apic.read(CURRENT) == 100
        bench.time += 40 * TICK
        assert bench.apic.read(CURRENT) == 60
        bench.pass_to(1000 + 100 * TICK)
        assert bench.take() == 0x40
        assert bench.due is None
        assert bench.apic.read(CURRENT) == 0

    @pytest.mark.parametrize(
        ("register", "divide"), [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)]
    )
    def test_the_divide_configuration(self, bench: Bench, register: int, divide: int) -> None:
        """SDM figure 11-10: bits 3, 1 and 0."""
        bench.start(10, divide=register)
        assert bench.due == 1000 + 10 * divide * TICK

    def test_periods_follow_each_other_without_drift(self, bench: Bench) -> None:
        """However late the host is, the next period begins where the last one ended."""
        period = 100_000 * TICK
        bench.start(100_000, 0x40 | PERIODIC)
        bench.pass_to(1000 + period + 777)
        assert (bench.take(), bench.due) == (0x40, 1000 + 2 * period)
        assert bench.apic.read(CURRENT) == 100_000 - 77
        bench.apic.write(EOI, 0)
        bench.pass_to(1000 + 2 * period)
        assert (bench.take(), bench.due) == (0x40, 1000 + 3 * period)

    def test_missed_periods_are_one_interrupt(self, bench: Bench) -> None:
        period = 100_000 * TICK
        bench.start(100_000, 0x40 | PERIODIC)
        bench.pass_to(1000 + 5 * period + 1)
        assert bench.due == 1000 + 6 * period

    def test_a_period_has_a_least_length(self, bench: Bench) -> None:
        """Xen's create_periodic_time: 0.1 ms, or the guest would drown."""
        bench.start(1, 0x40 | PERIODIC)
        fired: list[int] = []
        while len(fired) < 10 and bench.due is not None:
            fired.append(bench.due)
            bench.pass_to(bench.due)
        assert [later - sooner for sooner, later in pairwise(fired[1:])] == [100_000] * 8

    def test_a_masked_timer_runs_but_does_not_interrupt(self, bench: Bench) -> None:
        bench.start(10, 0x40 | MASKED)
        bench.pass_to(1000 + 10 * TICK)
        assert bench.take() is None

    def test_a_count_of_0_stops_it(self, bench: Bench) -> None:
        bench.start(10, 0x40 | PERIODIC)
        bench.apic.write(INITIAL, 0)
        assert (bench.due, bench.apic.read(CURRENT)) == (None, 0)
        bench.apic.expire()  # one that was under way
        assert bench.due is None


class TestInterprocessor:
    """What ICR sends, and who is addressed (SDM 11.6)."""

    def test_icr_sends_its_low_word_and_the_destination_of_its_high_word(self, bench: Bench) -> None:
        sent: list[tuple[int, int]] = []
        bench.apic.send = lambda command, destination: sent.append((command, destination))
        bench.apic.write(ICR_HIGH, 6 << 24)
        bench.apic.write(ICR, 0x4500)
        assert sent == [(0x4500, 6)]

    @pytest.mark.parametrize(("destination", "arrives"), [(4, True), (0xFF, True), (5, False), (0, False)])
    def test_physical_destinations(self, bench: Bench, destination: int, arrives: int) -> None:
        assert bench.apic.is_addressed(destination, logical=False) == arrives

    @pytest.mark.parametrize(
        ("model", "destination", "arrives"),
        [(0xF, 0x22, True), (0xF, 0x41, False), (0, 0x22, True), (0, 0x12, False), (0, 0x21, False)],
    )
    def test_logical_destinations_flat_and_cluster(
        self, bench: Bench, model: int, destination: int, arrives: int
    ) -> None:
        bench.apic.write(DFR, model << 28)
        bench.apic.write(LDR, 0x22 << 24)
        assert bench.apic.is_addressed(destination, logical=True) == arrives

    def test_init_resets_it_and_stops_its_timer(self, bench: Bench) -> None:
        bench.start(100)
        bench.apic.accept(0x50)
        bench.apic.reset()
        assert (bench.due, bench.apic.enabled, bench.take(), bench.apic.read(ID)) == (None, False, None, 4 << 24)

    def test_the_delivery_status_is_idle(self, bench: Bench) -> None:
        bench.apic.write(ICR, 1 << 18 | 1 << 12 | 0x50)
        assert bench.apic.read(ICR) == 1 << 18 | 0x50
