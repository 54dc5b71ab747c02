"""A Linux boot to user space and power-off, whole processes: the emulator, and QEMU with TCG, take turns.

    python -m bench.linux_boot [--rounds N] [--profile]

Both boot the ELF in Debian's cloud kernel by its PVH entry, with one vCPU, 512 MB and the demo's initramfs; each finds
the devices of its platform (QEMU's is -M pc). On a machine that does other things, too, processor time says more than
the clock; both are kept. One round before the first is not counted. Prints rows for the README; writes
bench/results/linux-boot-DATE.json. --profile samples one boot with perf and prints where its time went.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from bench.startup import PVH, ROOT, surroundings

from pvh.demo import demo_initramfs
from pvh.kernel.read import read_kernel

GREETING = b"Hello from user space"
MEMORY = "512M"


@dataclass(frozen=True, slots=True)
class Boot:
    """A way to boot: name and command."""

    name: str
    command: list[str]


@dataclass(frozen=True, slots=True)
class Took:
    """What a boot took: seconds by the clock, and of processor time with the system's."""

    clock: float
    processor: float


def specimen() -> str:
    """Return the path of Debian's cloud kernel."""
    words = [sys.executable, "tools/obtain.py", "vmlinuz-cloud-6.1"]
    return subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def boots(folder: Path) -> tuple[Boot, Boot]:
    """Write kernel and initramfs into a folder; return pvh's boot and QEMU's."""
    kernel, initramfs = folder / "vmlinux", folder / "initramfs"
    source = read_kernel(specimen()).source
    kernel.write_bytes(source.read(0, source.size))
    initramfs.write_bytes(demo_initramfs())
    pvh = [PVH, "run", "--engine", "emulator", "--memory", MEMORY, "-c", "console=hvc0"]
    qemu = [
        "qemu-system-x86_64",
        "-M",
        "pc",
        "-accel",
        "tcg",
        "-m",
        MEMORY,
        "-smp",
        "1",
        "-nodefaults",
        "-no-user-config",
    ]
    qemu += ["-display", "none", "-serial", "stdio", "-no-reboot", "-append", "console=ttyS0"]
    return (
        Boot("pvh run --engine emulator", [*pvh, "--initrd", str(initramfs), str(kernel)]),
        Boot("qemu-system-x86_64 -M pc, TCG", [*qemu, "-kernel", str(kernel), "-initrd", str(initramfs)]),
    )


def once(boot: Boot) -> Took:
    """Boot; raises SystemExit where user space is not reached."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(boot.command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=300)
    clock, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode or GREETING not in done.stdout:
        raise SystemExit(f"{boot.name}: status {done.returncode}\n{done.stdout.decode()[-2000:]}{done.stderr.decode()}")
    return Took(clock, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def measure(field: tuple[Boot, ...], rounds: int) -> dict[str, list[Took]]:
    """Return what each took, in the order of the rounds."""
    times: dict[str, list[Took]] = {boot.name: [] for boot in field}
    for number in range(rounds + 1):
        for boot in field if number % 2 else field[::-1]:
            took = once(boot)
            print(f"round {number} of {rounds}: {boot.name}: {took.clock:.2f} s", file=sys.stderr)
            if number:
                times[boot.name].append(took)
    return times


def table(times: dict[str, list[Took]]) -> list[str]:
    """Return the rows of a Markdown table; the last contestant is the rival."""
    rows = ["| Linux to user space and off | min | median | max (s) | processor time | / QEMU's, median |"]
    rows += ["|---|---:|---:|---:|---:|---:|"]
    rival = statistics.median(took.processor for took in list(times.values())[-1])
    for name, own in times.items():
        clock = [took.clock for took in own]
        middle = statistics.median(took.processor for took in own)
        span = " | ".join(f"{value:.2f}" for value in (min(clock), statistics.median(clock), max(clock)))
        rows.append(f"| `{name}` | {span} | {middle:.2f} | {middle / rival:.2f} |")
    return rows


# Where a sample belongs: the first row whose patterns fit its shared object and symbol.
PLACES = (
    ("stores the slow way", "libunicorn", r"_st[bwlq]_mmu|notdirty|phys_page_fast|flatview_tr|find_mem|page_coll"),
    ("translation", "libunicorn", r"tcg_|tb_gen|liveness|disas|gen_|temp_|reset_dirty_by|ldub_code"),
    ("finding the next block", "libunicorn", r"lookup_tb|tb_htable|qht_|tb_lookup|tb_find|cpu_exec"),
    ("the library's check at each block", "libunicorn", r"check_exit_request"),
    ("addresses: page walks, flushes", "libunicorn", r"tlb|address_space|load_helper|handle_mmu|jmp_cache"),
    ("the library's rest", "libunicorn", r""),
    ("translated code", r"JIT", r""),
    ("the host's kernel", r"kernel", r""),
    ("Python, and the C around it", r"", r""),
)
HOOKS = "our hook at each block"
HOOK_SIZE = 0x140


def sampled(boot: Boot, folder: Path) -> list[tuple[float, str, str]]:
    """Return the share, shared object and symbol (or address) of what perf saw."""
    samples = str(folder / "samples")
    record = ["perf", "record", "-q", "-F", "1999", "-o", samples, "--", *boot.command]
    subprocess.run(record, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    report = ["perf", "report", "-i", samples, "--no-children", "--sort", "dso,sym", "--stdio", "-t", "|"]
    text = subprocess.run(report, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^\s*([\d.]+)%\s*\|\s*([^|]*?)\s*\|\[.\] (\S+)", text, re.MULTILINE)
    return [(float(share), shared, symbol) for share, shared, symbol in found]


def profile(boot: Boot, folder: Path) -> list[str]:
    """Sample a boot; return the rows of a Markdown table. The busiest page of code that is no file's is our hooks'."""
    samples = sampled(boot, folder)
    made = [(share, int(symbol, 16)) for share, shared, symbol in samples if "JIT" in shared]
    page: dict[int, float] = defaultdict(float)
    for share, address in made:
        page[address >> 12] += share
    busiest = max(page, key=lambda number: page[number])
    hooks = {address for _, address in made if address >> 12 == busiest and address & 0xFFF < HOOK_SIZE}
    shares = dict.fromkeys((*(name for name, *_ in PLACES), HOOKS), 0.0)
    for share, shared, symbol in samples:
        place = next(name for name, *patterns in PLACES if all(map(re.search, patterns, (shared, symbol))))
        ours = place == "translated code" and int(symbol, 16) in hooks
        shares[HOOKS if ours else place] += share
    return ["| where | % |", "|---|---:|", *(f"| {place} | {share:.1f} |" for place, share in shares.items())]


def main(argv: list[str]) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m bench.linux_boot", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="sample one boot instead (needs perf)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        field = boots(Path(name))
        if options.profile:
            print("\n".join(profile(field[0], Path(name))))
            return 0
        times = measure(field, options.rounds)
    rows = table(times)
    result = {
        **surroundings("bench.linux_boot", argv),
        "load average": os.getloadavg(),
        "commands": {boot.name: boot.command for boot in field},
        "seconds": {name: [[round(t.clock, 3), round(t.processor, 3)] for t in own] for name, own in times.items()},
        "table": rows,
    }
    path = ROOT / "bench" / "results" / f"linux-boot-{time.strftime('%Y-%m-%d')}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
