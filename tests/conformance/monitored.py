"""Guests run under the first-read monitor."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from pvh.build.builder import build
from pvh.build.image import Image
from pvh.conformance.finding import Finding
from pvh.conformance.monitor.engine import INSTRUCTIONS, MonitoredEngine
from pvh.engines.emulator.engine import EmulatorEngine
from pvh.kernel.read import read_kernel
from pvh.machine import Machine
from pvh.outcome import Outcome
from pvh.plan.options import BootOptions
from pvh.plan.planner import plan

SLOW = 120.0  # seconds


@cache
def emulator() -> EmulatorEngine:
    return EmulatorEngine()


def monitored(
    kernel: Path,
    options: BootOptions | None = None,
    limit: int = INSTRUCTIONS,
    change: Callable[[Image], None] = lambda _: None,
) -> tuple[tuple[Finding, ...], Outcome, MonitoredEngine]:
    """Run a kernel while it is watched; `change` alters the image before."""
    image = build(plan(read_kernel(str(kernel)), options or BootOptions(timeout=SLOW)))
    change(image)
    machines: list[Machine] = []
    over = "what the monitor watches is over"
    engine = MonitoredEngine(emulator(), limit, over=lambda: machines[0].end("interrupted", over))
    machines.append(Machine(image, engine, lambda _: None))
    outcome = machines[0].run()
    image.ram.close()
    return engine.findings, outcome, engine


def violations(findings: tuple[Finding, ...]) -> list[tuple[str, str]]:
    """Return clause and disassembly of what is not merely noted."""
    return [
        (finding.clause, finding.at.disassembly if finding.at else "")
        for finding in findings
        if finding.grade == "violation"
    ]
