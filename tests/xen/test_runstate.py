"""vcpu_runstate_info: what it counts, its layouts, and the areas it is kept in (facts/xen-abi.md, 8; public/vcpu.h)."""

from __future__ import annotations

import pytest

from pvh.abi.hypercall import VCPU_OP
from pvh.xen.runstate import Runstate
from xen.contexts import mode_32b
from xen.guest import ARG, BUFFER, RAM, READ_ONLY, SPARE, Guest

RUNNING, RUNNABLE, BLOCKED, OFFLINE = 0, 1, 2, 3
GET, REGISTER, REGISTER_PHYS = 4, 5, 14
UPDATE = 1 << 63
NO_AREA = 2**64 - 1
MS = 1_000_000
KINDS = pytest.mark.parametrize("command", [REGISTER, REGISTER_PHYS], ids=["linear", "physical"])


def layout(guest: Guest) -> str:
    """48 bytes with the entry time at 8; for 32-bit callers 44, with it at 4."""
    return "<i4xQ4Q" if guest.bits == 64 else "<iQ4Q"


def wait(guest: Guest, ms: int) -> None:
    guest.host.tsc += ms * guest.host.tsc_khz


def register(guest: Guest, command: int, where: int, vcpu: int = 0) -> int:
    guest.put("<Q", ARG, where)
    return guest.call(VCPU_OP, command, vcpu, ARG)


def ask(guest: Guest, vcpu: int) -> tuple[int, ...]:
    assert guest.call(VCPU_OP, GET, vcpu, BUFFER) == 0
    return guest.get(layout(guest), BUFFER)


def test_it_is_laid_out_for_the_callers_width(guest: Guest) -> None:
    wait(guest, 7)
    size = 48 if guest.bits == 64 else 44
    guest.ram.write(BUFFER, b"\xaa" * (size + 1))
    assert ask(guest, 0) == (RUNNING, 0, 7 * MS, 0, 0, 0)
    assert guest.ram.read(BUFFER + size, 1) == b"\xaa"


def test_a_vcpu_that_never_ran_is_offline_all_the_time(guest: Guest) -> None:
    wait(guest, 3)
    assert ask(guest, 1) == (OFFLINE, 0, 0, 0, 0, 3 * MS)


def test_each_state_counts_its_own_time(guest: Guest) -> None:
    """Up and down by hypercall; blocked and runnable as the machine notes them."""
    guest.ram.write(ARG, mode_32b())
    wait(guest, 1)
    guest.call(VCPU_OP, 0, 1, ARG)
    guest.call(VCPU_OP, 1, 1, 0)
    assert ask(guest, 1) == (RUNNING, 1 * MS, 0, 0, 0, 1 * MS)
    wait(guest, 2)
    guest.domain.note_runstate(1, BLOCKED)
    wait(guest, 4)
    guest.domain.note_runstate(1, RUNNABLE)
    wait(guest, 8)
    assert ask(guest, 1) == (RUNNABLE, 7 * MS, 2 * MS, 8 * MS, 4 * MS, 1 * MS)
    guest.domain.note_runstate(1, RUNNING)
    wait(guest, 16)
    guest.call(VCPU_OP, 2, 1, 0)
    wait(guest, 32)
    assert ask(guest, 1) == (OFFLINE, 31 * MS, 18 * MS, 8 * MS, 4 * MS, 33 * MS)


def test_a_thread_that_is_late_does_not_bring_a_vcpu_back(guest: Guest) -> None:
    """It woke from HLT while another vCPU took it down."""
    guest.domain.apic_sipi(1, 0)
    guest.domain.note_runstate(1, BLOCKED)
    guest.call(VCPU_OP, 2, 1, 0)
    guest.domain.note_runstate(1, RUNNING)
    assert ask(guest, 1)[0] == OFFLINE


def test_an_engines_own_sipi_and_init_count(guest: Guest) -> None:
    wait(guest, 1)
    guest.host.awaited[1] = "nothing"
    guest.call(VCPU_OP, 3, 1, 0)
    assert ask(guest, 1)[:2] == (RUNNING, 1 * MS)
    wait(guest, 1)
    guest.host.awaited[1] = "sipi"
    guest.call(VCPU_OP, 3, 1, 0)
    assert ask(guest, 1)[:2] == (OFFLINE, 2 * MS)


@KINDS
def test_an_area_is_written_at_once_with_times_as_of_the_entry(guest: Guest, command: int) -> None:
    wait(guest, 5)
    guest.ram.write(SPARE, b"\xaa" * 49)
    assert register(guest, command, SPARE) == 0
    assert guest.get(layout(guest), SPARE) == (RUNNING, 0, 0, 0, 0, 0)
    assert guest.ram.read(SPARE + (48 if guest.bits == 64 else 44), 1) == b"\xaa"


@KINDS
def test_an_area_is_written_on_change(guest: Guest, command: int) -> None:
    register(guest, command, SPARE)
    wait(guest, 5)
    guest.domain.note_runstate(0, RUNNING)  # no change
    assert guest.get(layout(guest), SPARE) == (RUNNING, 0, 0, 0, 0, 0)
    guest.domain.note_runstate(0, BLOCKED)
    assert guest.get(layout(guest), SPARE) == (BLOCKED, 5 * MS, 5 * MS, 0, 0, 0)
    wait(guest, 1)
    guest.domain.note_runstate(0, RUNNING)
    assert guest.get(layout(guest), SPARE) == (RUNNING, 6 * MS, 5 * MS, 0, 1 * MS, 0)


def test_the_physical_area_of_another_vcpu_is_written_when_it_changes(guest: Guest) -> None:
    """runstate_area_populate fills it for the caller itself only."""
    guest.ram.write(SPARE, b"\xaa" * 48)
    assert register(guest, REGISTER_PHYS, SPARE, vcpu=1) == 0
    assert guest.ram.read(SPARE, 48) == b"\xaa" * 48
    wait(guest, 1)
    guest.domain.apic_sipi(1, 0)
    assert guest.get(layout(guest), SPARE) == (RUNNING, 1 * MS, 0, 0, 0, 1 * MS)


def test_the_linear_area_of_another_vcpu_is_written_at_once(guest: Guest) -> None:
    assert register(guest, REGISTER, SPARE, vcpu=1) == 0
    assert guest.get(layout(guest), SPARE) == (OFFLINE, 0, 0, 0, 0, 0)


@KINDS
def test_another_of_its_kind_replaces_an_area(guest: Guest, command: int) -> None:
    register(guest, command, SPARE)
    register(guest, command, BUFFER)
    guest.domain.note_runstate(0, BLOCKED)
    assert guest.get("<i", SPARE) == (RUNNING,)
    assert guest.get("<i", BUFFER) == (BLOCKED,)


def test_there_may_be_one_of_each_kind(guest: Guest) -> None:
    register(guest, REGISTER, SPARE)
    register(guest, REGISTER_PHYS, BUFFER)
    guest.domain.note_runstate(0, BLOCKED)
    assert guest.get("<i", SPARE) == guest.get("<i", BUFFER) == (BLOCKED,)


def test_a_physical_area_can_be_given_up(guest: Guest) -> None:
    register(guest, REGISTER_PHYS, SPARE)
    assert register(guest, REGISTER_PHYS, NO_AREA) == 0
    guest.domain.note_runstate(0, BLOCKED)
    assert guest.get("<i", SPARE) == (RUNNING,)


def test_a_refused_place_leaves_the_old_one(guest: Guest) -> None:
    register(guest, REGISTER_PHYS, SPARE)
    assert register(guest, REGISTER_PHYS, RAM) < 0
    guest.domain.note_runstate(0, BLOCKED)
    assert guest.get("<i", SPARE) == (BLOCKED,)


def test_a_linear_area_may_lie_across_pages_that_are_not_neighbours() -> None:
    guest = Guest()
    second = 0xE000
    guest.put("<Q", 0x13000 + (SPARE + 0x1000 >> 12) * 8, second | 3)
    register(guest, REGISTER, SPARE + 0xFF0)
    wait(guest, 3)
    guest.domain.note_runstate(0, BLOCKED)
    assert guest.get("<i4xQ", SPARE + 0xFF0) == (BLOCKED, 3 * MS)
    assert guest.get("<4Q", second) == (3 * MS, 0, 0, 0)


@pytest.mark.parametrize("linear", [RAM, 1 << 47, READ_ONLY, READ_ONLY - 8])
def test_a_linear_area_that_leads_nowhere_gives_0_and_is_not_written(linear: int) -> None:
    guest = Guest()
    guest.ram.write(READ_ONLY - 8, b"\xaa" * 64)
    register(guest, REGISTER, SPARE)
    assert register(guest, REGISTER, linear) == 0
    guest.domain.note_runstate(0, BLOCKED)
    assert guest.ram.read(READ_ONLY - 8, 64) == b"\xaa" * 64
    assert guest.get("<i", SPARE) == (RUNNING,)


def test_without_paging_a_linear_area_that_is_no_memory_stays_unwritten() -> None:
    guest = Guest(bits=32)
    assert register(guest, REGISTER, RAM) == 0
    guest.domain.note_runstate(0, BLOCKED)


class Witness:
    """RAM that keeps each write."""

    def __init__(self) -> None:
        self.writes: list[tuple[int, bytes]] = []

    def write(self, gpa: int, data: bytes) -> bool:
        self.writes.append((gpa, bytes(data)))
        return True


@pytest.mark.parametrize(("wide", "at"), [(True, 8), (False, 4)])
def test_a_physical_area_says_that_it_is_being_written(*, wide: bool, at: int) -> None:
    """XEN_RUNSTATE_UPDATE is in the entry time before the rest changes, and gone once it has."""
    from pvh.xen.runstate import Area

    witness = Witness()
    runstate = Runstate(witness, RUNNING)  # type: ignore[arg-type]
    runstate.keep("physical", Area(((SPARE, 48 if wide else 44),), wide), write=False)
    assert not witness.writes
    runstate.change(BLOCKED, 77)
    (first, marked), (whole, data), (last, clear) = witness.writes
    assert (first, whole, last) == (SPARE + at, SPARE, SPARE + at)
    assert marked == data[at : at + 8] == (77 | UPDATE).to_bytes(8, "little")
    assert clear == (77).to_bytes(8, "little")
    assert len(data) == (48 if wide else 44)
    assert data[:4] == b"\x02\0\0\0"


def test_a_linear_area_does_not(guest: Guest) -> None:
    """That takes vm_assist, which is not offered."""
    from pvh.xen.runstate import Area

    witness = Witness()
    runstate = Runstate(witness, RUNNING)  # type: ignore[arg-type]
    runstate.keep("linear", Area(((SPARE, 10), (BUFFER, 38)), guest.bits == 64), write=True)
    assert [gpa for gpa, _ in witness.writes] == [SPARE, BUFFER]
