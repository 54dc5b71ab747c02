"""vCPUs that sleep at their own wish, on whole machines: SCHEDOP_block and SCHEDOP_poll take no processor time.

The guests run with interrupts off: what wakes them is Xen, not an interrupt.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from engines.flat import CODE, assemble
from machines import call, run
from pvh.engines.select import choose
from pvh.errors import PvhError

if TYPE_CHECKING:
    from pvh.engines.engine import Engine
    from pvh.outcome import Outcome
    from pvh.plan.options import EngineName

ARGUMENT, CONTEXT, PORTS = 0x21000, 0x22000, 0x23000
SET_TIMER_OP, VCPU_OP, SCHED_OP, EVENT_CHANNEL_OP = 15, 24, 29, 32
BLOCK, POLL = 1, 3
MS = 1_000_000
END = "movb $7, %al;"


@pytest.fixture(params=["emulator", "kvm"])
def engine(request: pytest.FixtureRequest) -> Engine:
    name: EngineName = request.param
    try:
        return choose(name, lambda _: None)
    except PvhError as error:
        pytest.skip(str(error))


def slept(outcome: Outcome, spent: float, least: float) -> bool:
    assert (outcome.ending, outcome.status) == ("exit-port", 7), outcome.reason
    return outcome.seconds >= least and spent < least


def test_poll_sleeps_until_its_timeout(engine: Engine) -> None:
    poll = struct.pack("<IIQ", 0, 0, 500 * MS)
    assert slept(*run(engine, call(SCHED_OP, POLL, ARGUMENT) + END, {ARGUMENT: poll}), 0.5)


def test_block_sleeps_until_the_timer_fires(engine: Engine) -> None:
    """VIRQ_TIMER is bound, no port is masked; no upcall vector is set, nor would it be taken."""
    source = call(EVENT_CHANNEL_OP, 1, ARGUMENT) + call(SET_TIMER_OP, 500 * MS, 0) + call(SCHED_OP, BLOCK, 0) + END
    assert slept(*run(engine, source, {ARGUMENT: bytes(12)}), 0.5)


def test_poll_sleeps_until_another_vcpu_sends(engine: Engine) -> None:
    """As Linux's spinlocks do: vCPU 0 polls a port of its own, vCPU 1 sends to it after a while, and halts for good."""
    bind = call(EVENT_CHANNEL_OP, 7, ARGUMENT)
    start = call(VCPU_OP, 0, 1, CONTEXT) + call(VCPU_OP, 1, 1, 0)
    source = bind + start + call(SCHED_OP, POLL, PORTS) + END
    other = "movl $100000, %ecx; 1: loop 1b;" + call(EVENT_CHANNEL_OP, 4, ARGUMENT + 4) + "cli; hlt"
    at = CODE + 0x1000
    attributes = (0xC9B, 0xC93, 0xC93, 0xC93, 0x8B)
    context = struct.pack(
        "<II13I4xQ5I5I5H6x", 0, 0, 0, 0, 0, 0, 0x80000, 0, 0, 0, at, 2, 0x11, 0, 0, 0, *(0,) * 5,
        *(0xFFFFFFFF,) * 4, 0x67, *attributes,
    )  # fmt: skip
    assert len(context) == 128
    memory = {
        at: assemble(other, origin=at),
        CONTEXT: context,
        ARGUMENT: struct.pack("<II", 0, 0),
        PORTS: struct.pack("<IIQ", ARGUMENT + 4, 1, 0),
    }
    outcome, _ = run(engine, source, memory, vcpus=2)
    assert (outcome.ending, outcome.status) == ("exit-port", 7), outcome.reason
