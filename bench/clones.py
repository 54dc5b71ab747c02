"""What snapshots cost: to restore, to clone, and 100 clones of a booted Linux that each run a command.

    python -m bench.clones [--count 100] [--json FILE]

On each engine that is here a small guest of 128 MiB writes one byte of each of 1024 pages, is paused, and restored: the
time of Guest.restore(), by the clock and of the processor, and how many of those that took more than 2 ms by the clock
were preempted (ru_nivcsw of getrusage(2)). On a host that does other things these are what the clock adds.

A Linux (Debian's cloud kernel, 128 MiB, on the emulator) is booted as `pvh run --exec` does, up to where its init asks
for a command. Memory is what the kernel accounts to this process alone (Pss of /proc/self/smaps_rollup) for each clone
more; a clone's own is the guest's pages that it wrote, and the emulator's translated code.

The same by whole processes, `pvh run --exec true`: one that boots, and as many that go on from the boot cache.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pvh
from pvh import snapshot
from pvh.build.builder import build
from pvh.cli.exec import Errand, for_command
from pvh.engines.emulator.engine import EmulatorEngine
from pvh.engines.kvm.device import DEVICE
from pvh.kernel.read import read_kernel
from pvh.machine import Machine
from pvh.plan.options import BootOptions, EngineName
from pvh.plan.planner import plan
from pvh.snapshot import Snapshot

SPECIMENS = ".cache/specimens"
ENGINE = EmulatorEngine()
ENGINES: tuple[EngineName, ...] = ("emulator", "kvm")
DIRTY = 4 << 20
WRITTEN = 32 << 20
# mov edi, WRITTEN; mov ecx, 1024; 1: mov byte [edi], 1; add edi, 4096; loop 1b; mov al, 10; out 0xe9, al; jmp .
WRITER = bytes.fromhex("bf00000002 b900040000 c60701 81c700100000 e2f5 b00a e6e9 ebfe")


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


def restores(engine: EngineName, count: int) -> dict[str, object]:
    """Return figures of restoring a guest that dirtied 4 MiB."""
    clock, processor, preempted, cloned = list[float](), list[float](), list[bool](), list[float]()
    with pvh.boot(pvh.demo_path(), BootOptions(memory=128 << 20, engine=engine), paused=True) as guest:
        guest.write(guest.registers().rip, WRITER)
        moment = guest.snapshot()
        for _ in range(count):
            guest.resume()
            guest.console.expect("\n", timeout=60)
            guest.pause()
            assert guest.read(WRITTEN + DIRTY - 4096, 1) == b"\1", "it has written"
            switches, used, began = switched(), time.thread_time(), time.perf_counter()
            guest.restore(moment)
            clock.append((time.perf_counter() - began) * 1e3)
            processor.append((time.thread_time() - used) * 1e3)
            preempted.append(clock[-1] > 2 and switched() > switches)
            assert guest.read(WRITTEN + DIRTY - 4096, 1) == b"\0", "and has not, now"
        for _ in range(count):
            began = time.perf_counter()
            other = pvh.resume(moment, paused=True)
            cloned.append((time.perf_counter() - began) * 1e3)
            other.close()
    return {
        "restore_ms_4mib_dirty": three(clock),
        "restore_processor_ms": three(processor),
        "restores_over_2_ms": sum(each > 2 for each in clock),
        "of_them_preempted": sum(preempted),
        "clone_ms": three(cloned),
    }


def switched() -> int:
    """Return how often this thread has lost its processor to another."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def three(values: list[float]) -> list[float]:
    """Return the least, the median and the greatest."""
    return [round(value, 3) for value in (min(values), statistics.median(values), max(values))]


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


def pooled(moment: Snapshot, order: bytes, count: int) -> float:
    """Return seconds until all clones had run their commands, as many at a time as there are processors."""

    def one(_: int) -> None:
        machine = clone(moment, order)
        finish(machine)
        give_back(machine)

    began = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, range(count)))
    return time.monotonic() - began


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


def processes(count: int) -> dict[str, object]:
    """Return seconds of whole `pvh run --exec true`: the one that boots, and those that go on from its boot cache."""
    pvh_run = [f"{os.path.dirname(sys.executable)}/pvh", "run", "--engine", "emulator", "--memory", "128M"]
    command = [*pvh_run, "--busybox", f"{SPECIMENS}/busybox", "--exec", "true", f"{SPECIMENS}/vmlinuz-cloud-6.1"]
    clock, processor = list[float](), list[float]()
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PVH_CACHE": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a package that pip installed has its byte code
        for _ in range(1 + count):
            began = time.perf_counter()
            ran = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
            said = ran.stderr.read() if ran.stderr else b""
            _, status, used = os.wait4(ran.pid, 0)
            ran.returncode = os.waitstatus_to_exitcode(status)
            clock.append(time.perf_counter() - began)
            processor.append(used.ru_utime + used.ru_stime)
            assert ran.returncode == 0, said
    return {
        "exec_first_s": round(clock[0], 2),
        "exec_again_s": three(clock[1:]),
        "exec_again_processor_s": three(processor[1:]),
    }


def main() -> None:
    """Measure, print, and write the figures down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--json", default=f"bench/results/clones-{date.today().isoformat()}.json")  # noqa: DTZ011
    asked = parser.parse_args()
    load = os.getloadavg()[0]  # of others: what is measured adds its own
    engines: list[EngineName] = [name for name in ENGINES if name == "emulator" or os.access(DEVICE, os.R_OK | os.W_OK)]
    small: dict[str, object] = {name: restores(name, asked.count) for name in engines}
    whole = processes(asked.count)
    moment, order, boot = booted()
    made, done = one_by_one(moment, order, asked.count)
    pool = pooled(moment, order, asked.count)
    seconds, idle, used = together(moment, order, asked.count)
    figures = {
        "count": asked.count,
        "load": round(load, 1),
        **small,
        **whole,
        "boot_s": round(boot, 2),
        "snapshot_mib": moment.size >> 20,
        "clone_ms": three(made),
        "clone_runs_true_s": three(done),
        "pooled_s": round(pool, 2),
        "all_at_once_s": round(seconds, 2),
        "clone_kib_before_it_runs": idle >> 10,
        "clone_kib_at_its_end": used >> 10,
    }
    print(json.dumps(figures, indent=2))
    with open(asked.json, "w", encoding="utf-8") as file:
        file.write(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
