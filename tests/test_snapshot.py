"""Snapshots: what a guest does after one is what it did before, here, again, and elsewhere."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pvh
from pvh import snapshot
from pvh.build.builder import build
from pvh.build.frozen import freeze
from pvh.build.populated import populated
from pvh.build.ram import GuestRam
from pvh.engines.emulator.engine import EmulatorEngine
from pvh.engines.engine import Engine
from pvh.engines.exits import Exit
from pvh.engines.select import choose
from pvh.errors import PvhError
from pvh.kept import dumps, loads
from pvh.kernel.read import read_kernel
from pvh.machine import Machine
from pvh.plan.options import BootOptions
from pvh.plan.planner import plan
from pvh.snapshot import RECORDS, Snapshot

GUESTS = Path(__file__).parent / "guests"
ENGINE = EmulatorEngine()


class Run:
    """A guest that stops after so many exits; what it has said since it was last asked."""

    def __init__(self, guest: str, exits: int, vcpus: int = 1, engine: Engine = ENGINE) -> None:
        self.said = bytearray()
        self.left = exits
        self.there = threading.Event()
        options = BootOptions(vcpus=vcpus, memory=64 << 20, timeout=60)
        made = plan(read_kernel(str(GUESTS / guest)), options)
        self.machine = Machine(build(made), engine, self.said.extend, self.count)
        self.snapshot: Snapshot | None = None

    def count(self, _vcpu: int, _event: Exit, _answer: int | None) -> None:
        self.left -= 1
        if not self.left:
            self.machine.rest()
            self.there.set()

    def until_there(self) -> None:
        """Run on until the exit, take a snapshot, and go on to the end."""
        thread = threading.Thread(target=self.machine.run, kwargs={"close": False})
        thread.start()
        while thread.is_alive() and not self.there.wait(0.01):
            pass
        if self.there.is_set() and self.machine.pause():
            self.snapshot = snapshot.take(self.machine)
            self.said.clear()
        self.machine.unpause()
        thread.join()

    def text(self) -> bytes:
        said = bytes(self.said)
        self.said.clear()
        return said


@pytest.mark.parametrize(("guest", "vcpus"), [("personality.elf", 1), ("smp.elf", 3), ("vcpuop.elf", 2)])
@settings(max_examples=4)
@given(data=st.data())
def test_what_follows_a_snapshot_follows_each_time(guest: str, vcpus: int, data: st.DataObject) -> None:
    """In place, again, and in another machine that has only the snapshot as it is kept in a file."""
    follows(Run(guest, data.draw(st.integers(1, 400)), vcpus))


@pytest.mark.parametrize(
    ("guest", "vcpus", "most"), [("personality.elf", 1, 400), ("smp.elf", 2, 100), ("vcpuop.elf", 2, 400)]
)
@settings(max_examples=2)
@given(data=st.data())
def test_it_follows_on_kvm(kvm: Engine, guest: str, vcpus: int, most: int, data: st.DataObject) -> None:
    follows(Run(guest, data.draw(st.integers(1, most)), vcpus, kvm), kvm)


@pytest.fixture(scope="module")
def kvm() -> Engine:
    try:
        return choose("kvm", lambda _: None)
    except PvhError as error:
        pytest.skip(str(error))


def test_a_guest_on_kvm_goes_back_and_is_cloned(kvm: Engine) -> None:
    """By what people call."""
    kernel = str(GUESTS / "personality.elf")
    with pvh.boot(kernel, BootOptions(engine="kvm", memory=64 << 20, vcpus=1), paused=True) as guest:
        moment = guest.snapshot()
        assert moment.engine == kvm.name
        guest.resume()
        first = guest.wait(60).ending, guest.console.text
        guest.restore(moment)
        with pvh.resume(moment) as other:
            assert (guest.wait(60).ending, guest.console.text) == first
            assert (other.wait(60).ending, other.console.text) == first
    assert first[0] == "poweroff"


def follows(run: Run, engine: Engine = ENGINE) -> None:
    run.until_there()
    expected, taken = run.text(), run.snapshot
    if taken is None:  # it ended before
        return
    for _ in range(2):
        snapshot.restore(run.machine, taken)
        run.machine.run(close=False)
        assert run.text() == expected
    assert loads(dumps(taken.state), RECORDS) == taken.state
    said = bytearray()
    kept = Snapshot(taken.plan, taken.engine, taken.ram, loads(dumps(taken.state), RECORDS))
    other = snapshot.resume(kept, engine, said.extend)
    other.run()
    assert said == expected
    other.image.ram.close()
    run.machine.vm.close()
    run.machine.image.ram.close()


def test_a_guest_shares_the_pages_of_what_it_rests_on_until_it_writes_them() -> None:
    ram, other = GuestRam(((0, 1 << 20), (1 << 32, 1 << 20))), GuestRam(((0, 1 << 20), (1 << 32, 1 << 20)))
    assert ram.write(4096, b"low")
    assert ram.write((1 << 32) + 12288, b"high")
    frozen = freeze(ram)
    assert ram.write(4096, b"LOW")
    assert ram.write(0x80000, b"new")
    ram.rest_on(frozen)
    other.rest_on(frozen)
    for each in (ram, other):
        assert (each.read(4096, 3), each.read((1 << 32) + 12288, 4), each.read(0x80000, 3)) == (
            b"low",
            b"high",
            bytes(3),
        )
    assert other.write(4096, b"own")
    assert ram.read(4096, 3) == b"low"
    assert frozen.allocated <= 2 * (64 << 10)
    ram.close()
    other.close()


def test_what_was_frozen_is_frozen_again_whether_it_was_touched_since_or_not() -> None:
    """Its pages are nobody's until they are touched: pagemap alone would take them for zeroes."""
    ram = GuestRam(((0, 1 << 20),))
    assert ram.write(0x3000, b"old")
    ram.rest_on(freeze(ram))
    assert ram.write(0x90000, b"new")
    assert all(any(gpa <= at < gpa + size for gpa, size in populated(ram)) for at in (0x3000, 0x90000))
    ram.rest_on(freeze(ram))
    assert (ram.read(0x3000, 3), ram.read(0x90000, 3)) == (b"old", b"new")
    ram.litter(3)
    littered = ram.read(0, 1 << 20)
    ram.rest_on(freeze(ram))
    assert ram.read(0, 1 << 20) == littered
    ram.close()
