"""Boots a guest of tests/guests and returns what it said; for vcpuop's tests too. Without pytest, for tests/nested."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

from pvh.build.builder import build
from pvh.engines.engine import Engine
from pvh.engines.select import choose
from pvh.errors import NoEngine
from pvh.kernel.read import read_kernel
from pvh.machine import Machine
from pvh.outcome import Outcome
from pvh.plan.options import MIB, BootOptions, EngineName
from pvh.plan.planner import plan

GUESTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "guests")
SECONDS = 120.0  # for machines that are busy; the guests need a few


@cache
def engine_of(name: EngineName) -> tuple[Engine | None, str]:
    """Return an engine and what was said of it; None where this machine has no such engine."""
    said: list[str] = []
    try:
        return choose(name, said.append), " ".join(said)
    except NoEngine as error:
        return None, str(error)


def boot(
    guest: str, engine: Engine, vcpus: int, cmdline: str = "", hear: Callable[[bytes], None] | None = None
) -> tuple[str, Outcome]:
    """Run a guest to its end. hear is given what it says as it says it."""
    options = BootOptions(memory=32 * MIB, vcpus=vcpus, cmdline=cmdline, timeout=SECONDS)
    image = build(plan(read_kernel(os.path.join(GUESTS, f"{guest}.elf")), options))
    said = bytearray()

    def console(data: bytes) -> None:
        said.extend(data)
        if hear:
            hear(data)

    try:
        outcome = Machine(image, engine, console).run()
    finally:
        image.ram.close()
    return said.decode("ascii", "backslashreplace"), outcome
