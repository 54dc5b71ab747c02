"""What becomes of the local APIC's timer in a guest that goes on from a snapshot (docs/snapshots.md)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import pvh
from pvh.plan.options import EngineName

KERNEL = str(Path(__file__).parent / "guests" / "apic_timer.elf")
PERIOD = 0.4  # seconds


def here() -> list[EngineName]:
    return ["emulator", "kvm"] if os.access("/dev/kvm", os.R_OK | os.W_OK) else ["emulator"]


@pytest.fixture(params=here())
def engine(request: pytest.FixtureRequest) -> EngineName:
    name: EngineName = request.param
    return name


def started(engine: EngineName, what: str) -> pvh.Guest:
    """Return a guest whose timer has been started."""
    guest = pvh.boot(KERNEL, pvh.BootOptions(memory=16 << 20, engine=engine, cmdline=what + engine[0]))
    guest.console.expect("S", timeout=20)
    return guest


def resumed(guest: pvh.Guest) -> Iterator[pvh.Guest]:
    """Give a clone of a guest that stands, and the guest itself gone back to now; both run."""
    moment = guest.snapshot()
    with guest.clone() as clone:
        yield clone
    guest.restore(moment)
    guest.resume()
    yield guest


@pytest.mark.parametrize("stood", [0.0, PERIOD + 0.2])
def test_a_one_shot_comes_though_it_fell_due_while_the_guest_stood(engine: EngineName, stood: float) -> None:
    with closing(started(engine, "o")) as guest:
        guest.pause()
        time.sleep(stood)
        for one in resumed(guest):
            one.console.expect("T", timeout=20)


def test_a_one_shot_that_was_taken_comes_again_on_kvm_alone(engine: EngineName) -> None:
    """A timer with a count of 0 is started anew by KVM, and over at once (kvm/lapic.c, set_target_expiration)."""
    with closing(started(engine, "n")) as guest:
        guest.console.expect("T", timeout=20)
        guest.pause()
        for one in resumed(guest):
            if engine == "kvm":
                one.console.expect("T", timeout=20)
            else:
                with pytest.raises(pvh.Timeout):
                    one.console.expect("T", timeout=PERIOD + 0.2)
