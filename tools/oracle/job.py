"""A guest to run on real Xen, and what came of it."""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tools.nested import cpio

# tsc_mode native: QEMU emulates RDTSCP badly, and Xen's emulation of the TSC would use it.
_CONFIG = """\
type = "pvh"
name = "{name}"
kernel = "/guests/{number}/kernel"
memory = {memory}
vcpus = {vcpus}
tsc_mode = "native"
on_poweroff = "preserve"
on_reboot = "preserve"
on_crash = "preserve"
"""


@dataclass(frozen=True, slots=True)
class Job:
    """One domain: its kernel, and what its configuration says.

    memory   MiB, as in xl's configuration
    ramdisk  module 0, or None
    seconds  of dom0's time, after which it is stopped and looked at
    """

    name: str
    kernel: Path
    vcpus: int = 1
    memory: int = 32
    cmdline: str = ""
    ramdisk: Path | None = None
    seconds: int = 20

    @property
    def word(self) -> str:
        """The job as the command line takes it."""
        usual = Job(self.name, self.kernel)
        parts = [f"{key}={getattr(self, key)}" for key in _KEYS if getattr(self, key) != getattr(usual, key)]
        named = [f"name={self.name}"] if self.name != self.kernel.stem else []
        return ",".join([str(self.kernel), *named, *parts])

    @property
    def digest(self) -> str:
        """SHA-256 of the kernel and the ramdisk: a log speaks of these bytes only."""
        files = [self.kernel, *([self.ramdisk] if self.ramdisk else [])]
        return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()

    def config(self, number: int) -> str:
        """Return xl's configuration of the domain in folder `number`."""
        text = _CONFIG.format(name=self.name, number=number, memory=self.memory, vcpus=self.vcpus)
        text += f'cmdline = "{self.cmdline}"\n' if self.cmdline else ""
        return text + (f'ramdisk = "/guests/{number}/ramdisk"\n' if self.ramdisk else "")


_KEYS = ("vcpus", "memory", "cmdline", "ramdisk", "seconds")


def parse(word: str) -> Job:
    """Read GUEST[,name=N][,vcpus=N][,memory=MIB][,cmdline=TEXT][,ramdisk=FILE][,seconds=N]; raise ValueError."""
    path, *pairs = word.split(",")
    given: dict[str, str] = {}
    for pair in pairs:
        key, _, given[key] = pair.partition("=")
    unknown = set(given) - {"name", *_KEYS}
    if unknown:
        raise ValueError(f"{word}: no such setting: {', '.join(sorted(unknown))}")
    usual = Job("", Path(path))
    vcpus, memory, seconds = (int(given.get(key, str(getattr(usual, key)))) for key in ("vcpus", "memory", "seconds"))
    name = given.get("name", usual.kernel.stem)
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or '"' in given.get("cmdline", ""):
        raise ValueError(f"{word}: a name is letters, digits, _ . and -; a command line has no quotation mark")
    ramdisk = Path(given["ramdisk"]) if "ramdisk" in given else None
    return Job(name, usual.kernel, vcpus, memory, given.get("cmdline", ""), ramdisk, seconds)


def entries(jobs: list[Job]) -> Iterator[cpio.Entry]:
    """Give the jobs as init.sh takes them: /guests/NN, in order."""
    yield cpio.Entry("guests", stat.S_IFDIR | 0o755)
    for number, job in enumerate(jobs, 10):  # two digits, so that a shell's order is ours
        yield cpio.Entry(f"guests/{number}", stat.S_IFDIR | 0o755)
        files = {"name": f"{job.name}\n".encode(), "seconds": f"{job.seconds}\n".encode()}
        files |= {"config": job.config(number).encode(), "kernel": job.kernel.read_bytes()}
        if job.ramdisk:
            files["ramdisk"] = job.ramdisk.read_bytes()
        for name, data in files.items():
            yield cpio.Entry(f"guests/{number}/{name}", stat.S_IFREG | 0o644, data)


PARTS = ("create", "hvmctx", "xenstore", "console", "dmesg", "end", "hvmctx-end")


@dataclass(frozen=True, slots=True)
class Log:
    """What real Xen said of a guest: facts about the run (date, versions, command, ...), and the raw parts by name.

    The parts are those of init.sh: PARTS, less what does not exist. Each ends with one newline.
    """

    facts: dict[str, str]
    parts: dict[str, str] = field(repr=False)

    def said(self) -> list[str]:
        """Return the lines the guest wrote to port 0xe9; Xen prints each as `(XEN) (d1) line`, in 79 bytes at most."""
        return re.findall(r"^(?:\(XEN\) )?(?:\[[^]]*\] )?\(d\d+\) ?(.*)$", self.parts.get("dmesg", ""), re.MULTILINE)

    @property
    def reason(self) -> int | None:
        """The domain's SHUTDOWN_* code (public/sched.h); None if it did not shut down."""
        rows = self.parts.get("end", "").splitlines()[1:]
        code = rows[0].split()[7] if rows else "-"
        return None if code == "-" else int(code)

    def text(self) -> str:
        """Return the log as a file's text, which `read` reads."""
        head = "".join(f"# {key}: {value}\n" for key, value in self.facts.items())
        return head + "".join(f"\n== {name}\n{part}" for name, part in self.parts.items())


def read(text: str) -> Log:
    """Read what Log.text made."""
    head, *parts = text.split("\n\n== ")
    facts: dict[str, str] = {}
    for line in head.splitlines():
        key, _, facts[key] = line.removeprefix("# ").partition(": ")
    bodies: dict[str, str] = {}
    for part in parts:
        name, _, body = part.partition("\n")
        bodies[name] = body.removesuffix("\n") + "\n"
    return Log(facts, bodies)
