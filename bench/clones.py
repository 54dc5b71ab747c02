"""What snapshots cost: to restore, to clone, and 100 clones of a booted Linux that each run a command.

    python -m bench.clones [--count 100] [--json FILE]

A Linux (Debian's cloud kernel, 128 MiB, on the emulator) is booted as `pvh run --exec` does, up to where its init asks
for a command. Memory is what the kernel accounts to this process alone (Pss of /proc/self/smaps_rollup) for each clone
more; a clone's own is the guest's pages that it wrote, and the emulator's translated code.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
from datetime import date

from pvh import snapshot
from pvh.build.builder import build
from pvh.cli.exec import Errand, for_command
from pvh.engines.emulator.engine import EmulatorEngine
from pvh.kernel.read import read_kernel
from pvh.machine import Machine
from pvh.plan.options import BootOptions
from pvh.plan.planner import plan
from pvh.snapshot import Snapshot

SPECIMENS = ".cache/specimens"
ENGINE = EmulatorEngine()
DIRTY = 4 << 20


def memory() -> int:
    """Return the bytes of this process, shared pages shared out."""
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("Pss:"))


def booted() -> tuple[Snapshot, bytes, float]:
    """Return a Linux that waits for its command, what to tell it, and the seconds its boot took."""
    options = for_command(BootOptions(memory=128 << 20, timeout=600), f"{SPECIMENS}/busybox")
    kernel = f"{SPECIMENS}/vmlinuz-cloud-6.1"
    order = Errand(kernel, options, "true", "none").order(ENGINE.clock)
    machine = Machine(build(plan(read_kernel(kernel), options)), ENGINE, lambda _: None)
    taken: list[Snapshot] = []

    def at_rest() -> None:
        taken.append(snapshot.take(machine))
        machine.end("interrupted", "it has booted")

    machine.command(b"", at_rest)
    began = time.monotonic()
    machine.run()
    machine.image.ram.close()
    return taken[0], order, time.monotonic() - began


def clone(moment: Snapshot, order: bytes) -> Machine:
    """Return a machine that will run the command."""
    machine = snapshot.resume(moment, ENGINE, lambda _: None)
    machine.command(order)
    return machine


def finish(machine: Machine) -> None:
    """Run a machine to its command's end."""
    outcome = machine.run(close=False)
    assert (outcome.ending, outcome.status) == ("exit-port", 0), outcome


def give_back(machine: Machine) -> None:
    """Close a machine."""
    machine.vm.close()
    machine.image.ram.close()


def restores(moment: Snapshot, count: int) -> list[float]:
    """Return ms of restoring a guest that dirtied 4 MiB."""
    machine = clone(moment, b"")
    found: list[float] = []
    (block, *_) = machine.image.ram.blocks
    for _ in range(count):
        for at in range(0, DIRTY, 4096):
            block.view[(32 << 20) + at] = 1
        began = time.perf_counter()
        snapshot.restore(machine, moment)
        found.append((time.perf_counter() - began) * 1e3)
    give_back(machine)
    return found


def one_by_one(moment: Snapshot, order: bytes, count: int) -> tuple[list[float], list[float]]:
    """Return ms of making a clone, and seconds until its command was done, for clones one after another."""
    made, done = list[float](), list[float]()
    for _ in range(count):
        began = time.perf_counter()
        machine = clone(moment, order)
        made.append((time.perf_counter() - began) * 1e3)
        finish(machine)
        done.append(time.perf_counter() - began)
        give_back(machine)
    return made, done


def together(moment: Snapshot, order: bytes, count: int) -> tuple[float, int, int]:
    """Return seconds until all clones had run their commands at once, and bytes of each: before, and at the end."""
    before = memory()
    machines = [clone(moment, order) for _ in range(count)]
    idle = (memory() - before) // count
    threads = [threading.Thread(target=finish, args=(machine,)) for machine in machines]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, used = time.monotonic() - began, (memory() - before) // count
    for machine in machines:
        give_back(machine)
    return seconds, idle, used


def main() -> None:
    """Measure, print, and write the figures down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--json", default=f"bench/results/clones-{date.today().isoformat()}.json")  # noqa: DTZ011
    asked = parser.parse_args()
    moment, order, boot = booted()
    restored = restores(moment, asked.count)
    made, done = one_by_one(moment, order, asked.count)
    seconds, idle, used = together(moment, order, asked.count)

    def three(values: list[float]) -> list[float]:
        return [round(value, 3) for value in (min(values), statistics.median(values), max(values))]

    figures = {
        "count": asked.count,
        "load": os.getloadavg()[0],
        "boot_s": round(boot, 2),
        "snapshot_mib": moment.size >> 20,
        "restore_ms_4mib_dirty": three(restored),
        "clone_ms": three(made),
        "clone_runs_true_s": three(done),
        "all_at_once_s": round(seconds, 2),
        "clone_kib_before_it_runs": idle >> 10,
        "clone_kib_at_its_end": used >> 10,
    }
    print(json.dumps(figures, indent=2))
    with open(asked.json, "w", encoding="utf-8") as file:
        file.write(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
