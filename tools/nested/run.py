"""Run a Python script against a genuine KVM, on any machine: inside a Linux that QEMU emulates with AMD's SVM.

    python -m tools.nested.run [--cpus N] [--memory MIB] [--timeout S] [--add FILE] SCRIPT [ARGUMENT...]
    python -m tools.nested.run [...] -- -m pvh run --engine kvm tests/guests/hello.elf

What it names must lie in this checkout (or be named by --add). It runs as root in /work, a copy of the checkout, with
Debian's Python 3.11, its standard library and nothing else. Its output is ours, and so is its exit status (<= 126).
124: it did not end in time. 125: the machine inside failed; its console is shown.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tools.nested import initramfs
from tools.nested.init import EXIT_PORT

TIMED_OUT = 124
BROKEN = 125
QUIET = "console=ttyS0 quiet mitigations=off nokaslr no_timer_check panic=-1"


@dataclass(frozen=True, slots=True)
class Inside:
    """How big the machine is, and how long it may take: MiB, seconds of our time."""

    cpus: int = 1
    memory: int = 1024
    timeout: float = 300
    add: tuple[Path, ...] = ()


def command(inside: Inside, kernel: Path, archive: Path, console: Path) -> list[str]:
    """Return QEMU's command line: the script's serial port on standard output, the console in a file."""
    return [
        *("qemu-system-x86_64", "-accel", "tcg", "-cpu", "EPYC,+svm,+npt", "-nodefaults", "-display", "none"),
        *("-m", str(inside.memory), "-smp", str(inside.cpus), "-no-reboot"),
        *("-kernel", str(kernel), "-initrd", str(archive), "-append", QUIET),
        *("-serial", f"file:{console}", "-serial", "stdio"),
        *("-device", f"isa-debug-exit,iobase={EXIT_PORT:#x},iosize=1"),
    ]


def run(words: list[str], inside: Inside) -> int:
    """Run a script with its arguments; its output goes to our standard output, its status is returned."""
    with tempfile.TemporaryDirectory(prefix="pvh-nested-") as folder:
        archive, console = Path(folder, "initramfs"), Path(folder, "console")
        archive.write_bytes(initramfs.build(words, inside.add, Path(folder, "work")))
        words = command(inside, initramfs.kernel(), archive, console)
        try:
            # QEMU says on standard error which features of the model it cannot emulate: none matters here.
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=inside.timeout, check=False
            )
        except FileNotFoundError:
            print("nested: qemu-system-x86_64 is not on PATH: tools/obtain.py --command installs it", file=sys.stderr)
            return BROKEN
        except subprocess.TimeoutExpired:
            return _report(f"not done after {inside.timeout:g} s", console, TIMED_OUT)
        if done.returncode & 1 and done.returncode > 1:  # isa-debug-exit gives 2 * value + 1; QEMU's own failure is 1
            return (done.returncode >> 1) - 1
        return _report(f"QEMU ended with {done.returncode}: {done.stderr.decode()}", console, BROKEN)


def _report(text: str, console: Path, status: int) -> int:
    said = console.read_text(encoding="utf-8", errors="replace") if console.exists() else ""
    print(f"nested: {text}\nnested: the console inside said:\n{said}", file=sys.stderr)
    return status


def main(argv: list[str]) -> int:
    """Run the tool."""
    parser = argparse.ArgumentParser(prog="python -m tools.nested.run", description=(__doc__ or "").partition("\n")[0])
    usual = Inside()
    parser.add_argument("--cpus", type=int, default=usual.cpus)
    parser.add_argument("--memory", type=int, default=usual.memory, help="MiB")
    parser.add_argument("--timeout", type=float, default=usual.timeout, help="seconds")
    parser.add_argument("--add", type=Path, action="append", default=[], metavar="FILE", help="put it into /work")
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="SCRIPT [ARGUMENT...]", help="what to type after `python`"
    )
    options = parser.parse_args(argv)
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not words:
        parser.error("no script named")
    return run(words, Inside(options.cpus, options.memory, options.timeout, tuple(options.add)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
