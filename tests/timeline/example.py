"""A timeline of every kind of exit and long lines, without a guest."""

from __future__ import annotations

from itertools import count

from pvh.abi.hypercall import VCPU_OP
from pvh.engines.exits import Halt, Hypercall, MmioRead, MmioWrite, MsrRead, MsrWrite, PortIn, PortOut, Shutdown
from pvh.timeline.record import Timeline

EXITS = (
    Hypercall(VCPU_OP, (3, 1, 0, 0, 0), 64, 0),
    PortOut(0xE9, 1, 65),
    PortIn(0x3F8, 1),
    MmioRead(0xFEE00020, 4),
    MmioWrite(0xFEE000B0, 4, 0),
    MsrRead(0x10),
    MsrWrite(0x40000000, 0x1000),
    Halt(wakes=True),
    Hypercall(99, (0, 0, 0, 0, 0), 32, 0),
)


def example(rounds: int = 50) -> Timeline:
    """Return one in which each thing happens a millisecond after the one before."""
    clock = count(0, 1_000_000)
    timeline = Timeline(lambda: next(clock))
    for turn in range(rounds):
        for event in EXITS:
            timeline.watch(turn % 3, event, None)
        timeline.console(f"line {turn} <b>&amp; {'long ' * (turn % 30)}{'W' * (turn * 7 % 300)}\r\nand half".encode())
        timeline.console(b" a line\n")
    timeline.watch(0, Shutdown(""), None)
    timeline.console(b"unfinished")
    timeline.flush()
    return timeline
