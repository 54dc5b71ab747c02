"""Debian's generic kernel to its user space on the genuine KVM inside QEMU TCG (tools/nested): `pvh run` beside QEMU.

    python -m bench.nested_boot [--rounds N] [--cmdline WORDS]

All boot the same vmlinux by its PVH entry with the same initramfs, 1 vCPU, 512 MB, from fork to the line that /init
prints; each is then ended. They take turns, and the order rotates. QEMU is this host's, with its libraries. Writes
bench/results/nested-boot-DATE.json (with --cmdline, its words in the name), with each single time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAYS = b"Hello from user space"
MEGABYTES = 512
SECONDS_EACH = 240
LOADER = "ld-linux-x86-64.so.2"
FIRMWARE = ("bios-256k.bin", "bios-microvm.bin", "pvh.bin", "kvmvapic.bin", "linuxboot_dma.bin")


def contestants(cmdline: str) -> dict[str, list[str]]:
    """Return their commands, in the folder where everything lies."""
    pvh = [sys.executable, "-m", "pvh", "run", "--engine", "kvm", "--memory", f"{MEGABYTES}M"]
    guest = ["-kernel", "vmlinux", "-initrd", "hello.cpio", "-append", f"console=ttyS0 {cmdline}".strip()]
    qemu = [f"./{LOADER}", "--library-path", ".", "./qemu-system-x86_64", "-L", ".", "-nodefaults", "-no-user-config"]
    qemu += ["-display", "none", "-serial", "stdio", "-m", f"{MEGABYTES}M", "-no-reboot", *guest]
    return {
        "pvh": [*pvh, "--cmdline", f"console=hvc0 {cmdline}".strip(), "--initrd", "hello.cpio", "vmlinux"],
        "qemu microvm": [*qemu, "-M", "microvm,accel=kvm"],
        "qemu pc": [*qemu, "-M", "pc,accel=kvm"],
    }


def once(command: list[str]) -> float:
    """Run a contestant to the line; return its seconds. Runs inside."""
    begin = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout
        said = bytearray()
        while SAYS not in said:
            data = os.read(child.stdout.fileno(), 1 << 16)
            if not data:
                raise SystemExit(f"{command}: it ended: {bytes(said[-2000:])!r} {child.communicate()[1]!r}")
            said += data
        took = time.monotonic() - begin
        child.kill()
    return took


def measure(rounds: int, cmdline: str) -> None:
    """Let them take turns, and print a JSON line for each time. Runs inside."""
    field = list(contestants(cmdline).items())
    for number in range(rounds):
        turn = number % len(field)
        for name, command in field[turn:] + field[:turn]:
            print(json.dumps({"name": name, "seconds": round(once(command), 2)}), flush=True)


def files(folder: Path) -> Iterator[Path]:
    """Make and name what the contestants need besides pvh."""
    from pvh.demo import demo_initramfs
    from pvh.kernel.read import read_kernel

    source = read_kernel(str(ROOT / ".cache/specimens/vmlinuz-generic-6.1")).source
    (folder / "vmlinux").write_bytes(source.read(0, source.size))
    (folder / "hello.cpio").write_bytes(demo_initramfs())
    yield from (folder / "vmlinux", folder / "hello.cpio")
    qemu = shutil.which("qemu-system-x86_64")
    assert qemu, "tools/obtain.py --command installs it"
    yield Path(qemu)
    linked = subprocess.run(["ldd", qemu], capture_output=True, text=True, check=True).stdout
    yield from map(Path, re.findall(r"(/\S+) \(0x", linked))
    for name in FIRMWARE:
        yield next(path for kind in ("seabios", "qemu") if (path := Path("/usr/share", kind, name)).exists())


def run(rounds: int, cmdline: str) -> list[dict[str, object]]:
    """Run the benchmark inside; return the times."""
    with tempfile.TemporaryDirectory() as folder:
        added = [word for path in files(Path(folder)) for word in ("--add", str(path))]
        limit = str(SECONDS_EACH * rounds)
        words = ["-m", "tools.nested.run", "--memory", "2560", "--timeout", limit, *added, "--", "bench/nested_boot.py"]
        command = [sys.executable, *words, "--inside", "--rounds", str(rounds), f"--cmdline={cmdline}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        raise SystemExit(f"{done.returncode}: {found}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return found


def main(argv: list[str]) -> int:
    """Run the benchmark, or its part inside."""
    parser = argparse.ArgumentParser(prog="python -m bench.nested_boot", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cmdline", default="", help="for every guest, besides console=")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.inside:
        measure(options.rounds, options.cmdline)
        return 0
    from bench.startup import surroundings

    found = run(options.rounds, options.cmdline)
    times = {name: [one["seconds"] for one in found if one["name"] == name] for name in contestants("")}
    middle = {name: statistics.median(taken) for name, taken in times.items()}  # type: ignore[type-var]
    ratios = {name: round(middle["pvh"] / middle[name], 2) for name in middle if name != "pvh"}  # type: ignore[operator]
    result = {**surroundings("bench.nested_boot", argv), "seconds": times, "ratios of medians": ratios}
    words = "-".join(["nested-boot", *options.cmdline.split(), time.strftime("%Y-%m-%d")])
    path = ROOT / "bench" / "results" / f"{words}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, taken in times.items():
        print(f"{name}: min {min(taken)}, median {middle[name]}, max {max(taken)} s; ratio {ratios.get(name, '')}")  # type: ignore[type-var]
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
