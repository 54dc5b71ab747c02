"""Whole processes side by side: `pvh run` on each engine, and QEMU's microvm with each accelerator, with one guest.

    python -m bench.startup [--rounds N] [--kernel FILE] [--memory MIB]

The contestants take turns, so that what else happens on the machine happens to all; the order rotates. One round before
the first is not counted. Every process must print the guest's line and end with the status that its exit port gives, or
the benchmark stops. Prints rows for the README; writes bench/results/startup-DATE.json, with each single time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PVH = str(ROOT / ".venv" / "bin" / "pvh")
HELLO = "tests/guests/hello.elf"
SAYS = b"Hello from PVH\n"


@dataclass(frozen=True, slots=True)
class Contestant:
    """A way to run the guest: its command, the status that means success, and whom it is compared with."""

    name: str
    command: list[str]
    status: int
    rival: str | None = None


def qemu(accelerator: str, kernel: str, memory: int) -> list[str]:
    """Return QEMU's fastest machine, with nothing on it but the guest's two ports."""
    machine = f"microvm,accel={accelerator},pic=off,pit=off,rtc=off,isa-serial=off"
    return [
        *("qemu-system-x86_64", "-M", machine, "-nodefaults", "-no-user-config", "-display", "none"),
        *("-m", f"{memory}M", "-kernel", kernel, "-chardev", "stdio,id=out"),
        *("-device", "isa-debugcon,iobase=0xe9,chardev=out", "-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
    ]


def contestants(kernel: str, memory: int) -> list[Contestant]:
    """Return all whose engine is on this machine. QEMU's exit device gives 2 * value + 1."""
    pairs = [("emulator", "tcg"), ("kvm", "kvm")] if os.access("/dev/kvm", os.R_OK | os.W_OK) else [("emulator", "tcg")]
    found: list[Contestant] = []
    for engine, accelerator in pairs:
        rival = f"qemu-system-x86_64 -M microvm, {accelerator.upper()}"
        run = [PVH, "run", "--engine", engine, "--memory", f"{memory}M", kernel]
        found.append(Contestant(f"pvh run --engine {engine}", run, 0, rival))
        found.append(Contestant(rival, qemu(accelerator, kernel, memory), 1))
    floor = [str(ROOT / ".venv" / "bin" / "python"), "-c", f"print({SAYS.decode().rstrip()!r})"]
    return [*found, Contestant("python -c print(...), the floor", floor, 0)]


def once(contestant: Contestant) -> float:
    """Run a contestant; return its milliseconds from fork to wait."""
    begin = time.perf_counter()
    done = subprocess.run(contestant.command, stdin=subprocess.DEVNULL, capture_output=True, cwd=ROOT, check=False)
    took = 1000 * (time.perf_counter() - begin)
    if done.returncode != contestant.status or SAYS not in done.stdout:
        raise SystemExit(f"{contestant.name}: status {done.returncode}\n{done.stdout!r}\n{done.stderr.decode()}")
    return took


def measure(field: list[Contestant], rounds: int) -> dict[str, list[float]]:
    """Return each contestant's times, in the order they were taken."""
    times: dict[str, list[float]] = {contestant.name: [] for contestant in field}
    for number in range(rounds + 1):
        turn = number % len(field)
        for contestant in field[turn:] + field[:turn]:
            took = once(contestant)
            if number:
                times[contestant.name].append(took)
    return times


def table(field: list[Contestant], times: dict[str, list[float]]) -> list[str]:
    """Return the rows of a Markdown table."""
    rows = ["| whole process, hello guest | min | median | max (ms) | median / QEMU's |", "|---|---:|---:|---:|---:|"]
    for contestant in field:
        own = times[contestant.name]
        middle = statistics.median(own)
        ratio = f"{middle / statistics.median(times[contestant.rival]):.2f}" if contestant.rival else ""
        rows.append(f"| `{contestant.name}` | {min(own):.1f} | {middle:.1f} | {max(own):.1f} | {ratio} |")
    return rows


def surroundings(module: str, arguments: list[str]) -> dict[str, object]:
    """Return what a figure of a benchmark depends on."""
    first = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    models = [line for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if "model name" in line]
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": ["python", "-m", module, *arguments],
        "pvh": f"{version('pvh')}, {commit.stdout.strip()}",
        "qemu": first.splitlines()[0],
        "python": platform.python_version(),
        "unicorn": version("unicorn"),
        "machine": f"{os.cpu_count()} x {models[0].partition(': ')[2] if models else platform.machine()}",
        "kernel": platform.release(),
    }


def main(argv: list[str]) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--kernel", default=HELLO)
    parser.add_argument("--memory", type=int, default=512, help="MiB")
    options = parser.parse_args(argv)
    field = contestants(options.kernel, options.memory)
    times = measure(field, options.rounds)
    rows = table(field, times)
    result = {
        **surroundings("bench.startup", argv),
        "commands": {contestant.name: contestant.command for contestant in field},
        "milliseconds": {name: [round(took, 2) for took in taken] for name, taken in times.items()},
        "table": rows,
    }
    path = ROOT / "bench" / "results" / f"startup-{time.strftime('%Y-%m-%d')}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
