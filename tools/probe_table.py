"""Write docs/probe.md: what the probe kernel saw in each VMM that runs here.

python -m tools.probe_table

Firecracker and libkrun are those of `python -m tools.loaders`.
"""

from __future__ import annotations

import datetime as dt
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tools.loaders import FIRECRACKER, LIBKRUN

from pvh.conformance.probe.capture import read_capture
from pvh.conformance.probe.facts import Observation, observe
from pvh.conformance.probe.kernel import probe_path
from pvh.conformance.probe.own import OWN, run_own
from pvh.conformance.probe.verdicts import Verdict, judge
from pvh.conformance.probe.vmm import CMDLINE, MODULE, VMMS, Accel, Probe, run_vmm

PAGE = Path(__file__).resolve().parent.parent / "docs" / "probe.md"
XEN = Path(__file__).resolve().parent.parent / "tests" / "oracle" / "logs" / "probe.log"  # by `make oracle`
KRUN = Path(__file__).resolve().parent.parent / "tests" / "kernel" / "in_libkrun.py"
ACCELS: tuple[Accel, ...] = ("tcg", "kvm")
MACHINES = ("qemu-pc", "qemu-q35", "qemu-microvm")
_SIGNS = {"upheld": "yes", "violated": "**no**", "not seen": "?", "open": "open"}
_BEGIN = "<!-- begin: python -m tools.probe_table -->\n"


def on_firecracker() -> Observation:
    """Probe the Firecracker of tools.loaders."""
    os.environ["PATH"] += f":{FIRECRACKER.path.parent}"
    return run_vmm(VMMS["firecracker"], Probe())


def on_libkrun() -> Observation:
    """Probe the libkrun of tools.loaders."""
    with tempfile.NamedTemporaryFile() as module:
        module.write(MODULE)
        module.flush()
        words = [sys.executable, str(KRUN), str(LIBKRUN.path), probe_path("elf64"), module.name, CMDLINE]
        said = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False).stdout
    return observe(read_capture(said, "libkrun"), "libkrun")


def on_xen() -> Observation:
    """Read what the probe said on real Xen."""
    return observe(read_capture(XEN.read_bytes(), str(XEN)), "Xen 4.17", "its log of make oracle")


COLUMNS: dict[str, Callable[[], Observation]] = {
    **{name: partial(run_own, name, Probe()) for name in OWN},
    "Xen 4.17": on_xen,
    **{
        f"{name}, {accel.upper()}": partial(run_vmm, VMMS[name], Probe(accel=accel, seconds=120.0))
        for name in MACHINES
        for accel in ACCELS
    },
    "Firecracker 1.12.1": on_firecracker,
    "libkrun": on_libkrun,
}


def version() -> str:
    """Return QEMU's, as it says it."""
    words = ["qemu-system-x86_64", "--version"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def table(columns: list[tuple[str, Observation]]) -> Iterator[str]:
    """Give the table's lines: clauses that some VMM answers for, and below what was seen."""
    judged = [(name, {verdict.clause: verdict for verdict in judge(seen)}) for name, seen in columns]
    yield f"| clause | {' | '.join(name for name, _ in judged)} |"
    yield "|" + "--|" * (len(judged) + 1)
    remarkable: list[tuple[str, Verdict]] = []
    for clause in judged[0][1]:
        row = [verdicts[clause] for _, verdicts in judged]
        if any(verdict.answer in ("upheld", "violated") or verdict.tempting for verdict in row):
            yield f"| {clause} | {' | '.join(map(cell, row))} |"
        remarkable += [
            (name, verdicts[clause])
            for name, verdicts in judged
            if verdicts[clause].answer == "violated" or verdicts[clause].tempting
        ]
    yield ""
    yield "What is not as it should be, and what a kernel may take for a promise:"
    yield ""
    for clause, evidence in dict.fromkeys((verdict.clause, verdict.evidence) for _, verdict in remarkable):
        names = [name for name, verdict in remarkable if (verdict.clause, verdict.evidence) == (clause, evidence)]
        yield f"- `{clause}` - {'; '.join(names)}: {evidence}"


def cell(verdict: Verdict) -> str:
    """Return what the table says of one clause and VMM."""
    return _SIGNS[verdict.answer] + (", \\*" if verdict.tempting else "")


def main() -> None:
    """Replace what stands behind the mark."""
    columns = [(name, see()) for name, see in COLUMNS.items()]
    head = PAGE.read_text(encoding="utf-8").partition(_BEGIN)[0]
    today = dt.datetime.now(tz=dt.UTC).date()
    where = f"{today}, {version()}, Linux {platform.release()}; this machine's KVM is software."
    PAGE.write_text(head + _BEGIN + "\n" + where + "\n\n" + "\n".join(table(columns)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
