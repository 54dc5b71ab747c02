#!/usr/bin/env python3
"""Run guests on real Xen, on any machine: Debian's hypervisor and dom0 inside a QEMU that emulates AMD's SVM.

    python tools/oracle/run.py [--logs DIR] [--timeout S] [GUEST[,vcpus=N][,memory=MIB][,cmdline=TEXT][,...]...]

Without a guest it runs those of tests/oracle/guests.txt, which are what the tests compare. All run in one boot, one
after the other, each created paused by `xl create` with type="pvh" and looked at before its first instruction.
Per guest it leaves a raw log in DIR (default tests/oracle/logs), and prints a line.
Status 1: a guest left no log. 2: Xen, dom0 or QEMU failed. 124: not done in time. Then the end of the console is shown,
and logs of guests that were done before are kept.
"""

from __future__ import annotations

import argparse
import ctypes
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools.nested import cpio  # noqa: E402 - run as a file, this folder's grandparent is not on the path
from tools.oracle import dom0, job  # noqa: E402

LOGS = ROOT / "tests" / "oracle" / "logs"
GUESTS = ROOT / "tests" / "oracle" / "guests.txt"
TIMED_OUT = 124
PR_SET_PDEATHSIG = 1  # linux/prctl.h
TERMINATED = 128 + signal.SIGTERM
BROKEN = 2
TAIL = 40  # lines of the console to show of a machine that failed
DONE = 1  # isa-debug-exit turns a written 0 into this

# SMAP and SMEP make dom0 page-fault, MONITOR gives Xen #GP when idle, RDTSCP and XSAVE trouble guests: all of it TCG's.
CPU = "EPYC,+svm,+npt,-smap,-smep,-monitor,-rdtscp,-xsave,-avx,-avx2"
MEMORY = 2048  # MiB; Xen keeps what dom0 does not get for the guests
XEN_WORDS = (
    "com1=115200,8n1 console=com1 cpuidle=0 dom0_mem=512M,max:512M dom0_max_vcpus=1 loglvl=all guest_loglvl=all"
    " conring_size=1m"
)
LINUX_WORDS = "console=hvc0 quiet mitigations=off"


class Failed(Exception):
    """The machine below the guests failed: the text says how; status is ours."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Boot:
    """What one boot left: the tar archives, in one stream; Xen's console; how long it took, in seconds.

    failure  what went wrong, or None; the archives of guests that ended before are there all the same
    """

    stream: bytes
    console: str
    seconds: float
    failure: Failed | None = None


def command(folder: Path) -> list[str]:
    """Return QEMU's command line; its files lie in `folder`: linux, initramfs, and what the serial ports will say."""
    modules = f"{folder / 'linux'} {LINUX_WORDS},{folder / 'initramfs'}"
    return [
        *("qemu-system-x86_64", "-accel", "tcg", "-cpu", CPU, "-m", str(MEMORY), "-nodefaults", "-display", "none"),
        *("-no-reboot", "-kernel", str(dom0.xen()), "-append", XEN_WORDS, "-initrd", modules),
        *("-serial", f"file:{folder / 'console'}", "-serial", f"file:{folder / 'results'}"),
        *("-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
    ]


def boot(jobs: list[job.Job], timeout: float) -> Boot:
    """Boot once and run the guests."""
    with tempfile.TemporaryDirectory(prefix="pvh-oracle-") as name:
        folder = Path(name)
        (folder / "linux").symlink_to(dom0.kernel())  # in -initrd a path ends at a space
        (folder / "initramfs").write_bytes(dom0.base() + cpio.archive(job.entries(jobs)))
        begin = time.monotonic()
        failure = _run_qemu(command(folder), timeout)
        seconds = time.monotonic() - begin
        console, results = (
            path.read_bytes() if path.exists() else b"" for path in (folder / "console", folder / "results")
        )
        return Boot(results, console.decode(errors="replace"), seconds, failure)


def _in_qemu() -> None:
    """Make the process that will be QEMU a polite one, which does not outlive us."""
    os.nice(5)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _exit(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(TERMINATED)  # an exception, so that what we made is removed


def _run_qemu(words: list[str], timeout: float) -> Failed | None:
    """Run QEMU to its end, at a lower priority; return what went wrong."""
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        # It says on standard error which features of the model it cannot emulate: none matters here.
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
            preexec_fn=_in_qemu,
        )
    except FileNotFoundError:
        return Failed("qemu-system-x86_64 is not on PATH: tools/obtain.py --command installs it", BROKEN)
    except subprocess.TimeoutExpired:
        return Failed(f"not done after {timeout:g} s", TIMED_OUT)
    finally:
        signal.signal(signal.SIGTERM, before)
    return (
        None
        if done.returncode == DONE
        else Failed(f"QEMU ended with {done.returncode}: {done.stderr.decode()}", BROKEN)
    )


def unpack(stream: bytes) -> dict[str, str]:
    """Return the files of tar archives that follow one another, by path."""
    files: dict[str, str] = {}
    with suppress(tarfile.ReadError), tarfile.open(fileobj=io.BytesIO(stream), ignore_zeros=True) as archive:
        for member in archive:  # the last may be cut, if the machine failed
            source = archive.extractfile(member)
            if source is not None:
                text = source.read().decode("utf-8", errors="backslashreplace")
                text = text.replace("\r", "").rstrip("\n")
                if text:
                    files[member.name.removeprefix("./")] = text + "\n"
    return files


def logs(digests: dict[job.Job, str], done: Boot, facts: dict[str, str]) -> list[job.Log]:
    """Return each guest's log, in order.

    digests  what ran; a guest whose file was changed meanwhile has an empty log: nobody knows which of the two it was
    """
    files = unpack(done.stream)
    xen = re.search(r"Xen version (.*)", done.console)
    versions = {"xen": xen[1].strip() if xen else "unknown", "dom0": files.get("versions", "unknown").strip()}
    found: list[job.Log] = []
    for number, (one, digest) in enumerate(digests.items(), 10):
        kept = [name for name in job.PARTS if f"{number}/{name}" in files and one.digest == digest]
        parts = {name: files[f"{number}/{name}"] for name in kept}
        found.append(job.Log({"guest": one.word, "sha256": digest} | facts | versions, parts))
    return found


def describe(words: list[str]) -> dict[str, str]:
    """Return the facts that all guests of a boot share."""
    try:
        said = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        said = "unknown"
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "command": shlex.join(["python", "tools/oracle/run.py", *words]),
        "qemu": f"{said.partition(chr(10))[0]}; -accel tcg -cpu {CPU} -m {MEMORY}",
        "xen command line": XEN_WORDS,
    }


def usual_guests() -> list[str]:
    """Return the words of guests.txt."""
    lines = GUESTS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def main(argv: list[str]) -> int:
    """Run the tool."""
    parser = argparse.ArgumentParser(prog="run.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--logs", type=Path, default=LOGS, metavar="DIR", help="where the raw logs go")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for everything")
    parser.add_argument("--console", action="store_true", help="show what Xen and dom0 said, too")
    parser.add_argument("guests", nargs="*", metavar="GUEST[,KEY=VALUE]...")
    options = parser.parse_args(argv)
    try:
        words = options.guests or usual_guests()
        jobs = [job.parse(word) for word in words]
        digests = {one: one.digest for one in jobs}
        done = boot(jobs, options.timeout)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    missing = keep(logs(digests, done, describe(words)), options.logs)
    print(f"{len(jobs) - missing} guests in {done.seconds:.1f} s", file=sys.stderr)
    if done.failure or options.console:
        lines = done.console.splitlines()
        print("\n".join(lines if options.console else lines[-TAIL:]), file=sys.stderr)
    if done.failure:
        print(f"oracle: {done.failure}", file=sys.stderr)
        return done.failure.status
    return 1 if missing else 0


def keep(found: list[job.Log], folder: Path) -> int:
    """Write the logs, and print a line for each; return how many guests left none."""
    folder.mkdir(parents=True, exist_ok=True)
    for log in found:
        name = job.parse(log.facts["guest"]).name
        if log.parts:
            (folder / f"{name}.log").write_text(log.text(), encoding="utf-8")
        print(f"{name}: {len(log.said())} lines, shutdown reason {log.reason}" if log.parts else f"{name}: no log")
    return sum(not log.parts for log in found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
