"""A hypercall and back: VCPUOP_is_up on each engine, and on KVM beside a bare C loop of the same exits.

    python -m bench.hypercall [--rounds N] [--engines kvm,emulator]

The guest (tests/guests/is_up.S) asks 20 000 times between two bytes on the console; what is timed is the time between
them, so nothing of start-up counts. The C loop (hypercall_loop.c, built here) runs the guest's code as the KVM engine
patched it, on the same /dev/kvm, and answers without looking. All take turns. Prints rows for the README; writes
bench/results/hypercall-DATE.json, with each single figure.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.startup import ROOT, surroundings

from pvh.build.builder import build
from pvh.build.image import Image
from pvh.engines.engine import Engine
from pvh.engines.select import choose
from pvh.errors import NoEngine
from pvh.kernel.read import read_kernel
from pvh.machine import Machine
from pvh.plan.options import MIB, BootOptions, EngineName
from pvh.plan.planner import plan

GUEST = ROOT / "tests" / "guests" / "is_up.elf"
SOURCE = ROOT / "bench" / "hypercall_loop.c"
CALLS = 20_000
LOOP = "C loop of the same exits"


def image() -> Image:
    """Return the guest in memory of its own."""
    return build(plan(read_kernel(str(GUEST)), BootOptions(memory=32 * MIB, timeout=120.0)))


def on(engine: Engine) -> float:
    """Run the guest on an engine; return the microseconds of a call."""
    times: list[float] = []
    guest = image()
    try:
        outcome = Machine(guest, engine, lambda data: times.extend([time.perf_counter()] * len(data))).run()
    finally:
        guest.ram.close()
    if outcome.status or len(times) != 2:
        raise SystemExit(f"{engine.name}: {outcome.reason}")
    return 1e6 * (times[1] - times[0]) / CALLS


def c_loop(engine: Engine, folder: Path) -> Callable[[], float]:
    """Build the loop and return how to run it: on the guest's code as the KVM engine would run it."""
    program, code = folder / "hypercall_loop", folder / "code"
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, SOURCE], check=True)
    guest = image()
    try:
        vm = engine.open(guest, (engine.cpuid(),))
        patched, kernel = vm.patched, guest.plan.kernel
        low = min(segment.paddr for segment in kernel.loads)
        size = max(segment.paddr + segment.memsz for segment in kernel.loads) - low
        code.write_bytes(guest.ram.read(low, size) or b"")
        entry = guest.entry.rip
        vm.close()
    finally:
        guest.ram.close()
    if not patched:
        raise SystemExit("this KVM intercepts hypercalls by itself, and the C loop knows only the other way")

    def once() -> float:
        done = subprocess.run([program, code, hex(low), hex(entry)], capture_output=True, text=True, check=True)
        return int(done.stdout) / 1000 / CALLS

    return once


def contestants(names: list[EngineName], folder: Path) -> dict[str, Callable[[], float]]:
    """Return what takes turns: the engines that are here, and beside KVM the C loop."""
    found: dict[str, Callable[[], float]] = {}
    for name in names:
        try:
            engine = choose(name, lambda _: None)
        except NoEngine as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        found[f"pvh, {name}"] = lambda engine=engine: on(engine)  # type: ignore[misc]
        if name == "kvm":
            found[LOOP] = c_loop(engine, folder)
    return found


def measure(field: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return each contestant's microseconds, in the order they were taken; a round before is not counted."""
    times: dict[str, list[float]] = {name: [] for name in field}
    for number in range(rounds + 1):
        order = list(field)
        turn = number % len(order)
        for name in order[turn:] + order[:turn]:
            took = field[name]()
            if number:
                times[name].append(round(took, 3))
    return times


def table(times: dict[str, list[float]]) -> list[str]:
    """Return the rows of a Markdown table."""
    rows = ["| `VCPUOP_is_up` and back | min | median | max (us) | median / C loop's |", "|---|---:|---:|---:|---:|"]
    for name, own in times.items():
        middle = statistics.median(own)
        ratio = f"{middle / statistics.median(times[LOOP]):.2f}" if LOOP in times and "emulator" not in name else ""
        rows.append(f"| {name} | {min(own):.1f} | {middle:.1f} | {max(own):.1f} | {ratio} |")
    return rows


def main(argv: list[str]) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m bench.hypercall", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--engines", default="emulator,kvm")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        times = measure(contestants(options.engines.split(","), Path(folder)), options.rounds)
    rows = table(times)
    result = {
        **surroundings("bench.hypercall", argv),
        "calls a round": CALLS,
        "load average": os.getloadavg(),
        "microseconds a call": times,
        "table": rows,
    }
    path = ROOT / "bench" / "results" / f"hypercall-{time.strftime('%Y-%m-%d')}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
