"""Run loaders other than QEMU on a file, and tell what they make of it. `python -m tools.loaders` obtains them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.loaders import FIRECRACKER, LIBKRUN, XEN

HERE = Path(__file__).parent
HAS_KVM = os.access("/dev/kvm", os.R_OK | os.W_OK)


@dataclass(frozen=True)
class Seen:
    """What a loader did.

    said   all it said
    took   the kernel got into memory
    entry  where it is entered, if the loader tells
    pvh    that this is by PVH, if the loader tells
    """

    said: str
    took: bool
    entry: int | None = None
    pvh: bool | None = None


@dataclass(frozen=True)
class Real:
    """A loader that can be run: its name in pvh.kernel.loaders, whether it can be here, and how."""

    name: str
    here: bool
    run: Callable[[Path], Seen]


def _until(words: list[str], mark: str) -> str:
    """Return what a program says until it ends, or says `mark`, which ends it."""
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        said, deadline = b"", time.monotonic() + 20
        try:
            while mark.encode() not in said and time.monotonic() < deadline:
                ended = process.poll() is not None
                said += process.stdout.read() or b""
                if ended:
                    break
                time.sleep(0.005)
        finally:
            process.kill()
    return said.decode(errors="replace")


def on_firecracker(path: Path) -> Seen:
    config = path.with_name("config.json")
    machine = {"vcpu_count": 1, "mem_size_mib": 256}
    config.write_text(json.dumps({"boot-source": {"kernel_image_path": str(path)}, "machine-config": machine,
                                  "drives": []}))  # fmt: skip
    loaded = "Kernel loaded using "
    said = _until([str(FIRECRACKER.path), "--no-api", "--level", "Debug", "--config-file", str(config)], loaded)
    return Seen(said, loaded in said, pvh=f"{loaded}PVH" in said)


def on_libkrun(path: Path) -> Seen:
    said = _until([sys.executable, str(HERE / "in_libkrun.py"), str(LIBKRUN.path), str(path)], "load_external_kernel: ")
    entry = re.search(r"load_external_kernel: 0x([0-9a-f]+)", said)
    return Seen(said, entry is not None, int(entry.group(1), 16) if entry else None)


def on_libxenguest(path: Path) -> Seen:
    said = _until([sys.executable, str(HERE / "in_libxenguest.py"), str(XEN), str(path)], "ELF: phdr 0 at")
    firmware = "trying HVM-generic loader ... \ndomainbuilder: detail: loader probe OK" in said
    entry = re.findall(r"virt_entry +=( 0x[0-9a-f]+)", said)
    took = "xc_dom_alloc_segment:   kernel " in said
    return Seen(said, took, int(entry[-1], 16) if entry else None, pvh=took and not firmware)


REAL = (
    Real("libxenguest", XEN.exists(), on_libxenguest),
    Real("Firecracker", FIRECRACKER.path.exists() and HAS_KVM, on_firecracker),
    Real("libkrun", LIBKRUN.path.exists() and HAS_KVM, on_libkrun),
)
