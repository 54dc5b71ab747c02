"""Write docs/probe.md: what the probe kernel saw in each VMM that runs here.

python -m tools.probe_table
"""

from __future__ import annotations

import datetime as dt
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pvh.conformance.probe.capture import read_capture
from pvh.conformance.probe.facts import Observation, observe
from pvh.conformance.probe.own import OWN, run_own
from pvh.conformance.probe.verdicts import Verdict, judge
from pvh.conformance.probe.vmm import VMMS, Probe, run_vmm

PAGE = Path(__file__).resolve().parent.parent / "docs" / "probe.md"
XEN = Path(__file__).resolve().parent.parent / "tests" / "oracle" / "logs" / "probe.log"  # by `make oracle`
MACHINES = ("qemu-pc", "qemu-q35", "qemu-microvm")
_SIGNS = {"upheld": "yes", "violated": "**no**", "not seen": "?", "open": "open"}
_BEGIN = "<!-- begin: python -m tools.probe_table -->\n"


def observed() -> Iterator[tuple[str, Observation]]:
    """Give each VMM's column."""
    for name in OWN:
        yield name, run_own(name, Probe())
    yield "Xen 4.17", observe(read_capture(XEN.read_bytes(), str(XEN)), "Xen 4.17", "its log of make oracle")
    for name in MACHINES:
        yield f"{name}, TCG", run_vmm(VMMS[name], Probe(accel="tcg"))
        yield f"{name}, KVM", run_vmm(VMMS[name], Probe(accel="kvm", seconds=120.0))


def table(columns: list[tuple[str, Observation]]) -> Iterator[str]:
    """Give the table's lines: clauses that some VMM answers for, and below what was seen."""
    judged = [(name, {verdict.clause: verdict for verdict in judge(seen)}) for name, seen in columns]
    yield f"| clause | {' | '.join(name for name, _ in judged)} |"
    yield "|" + "--|" * (len(judged) + 1)
    remarkable: list[tuple[str, Verdict]] = []
    for clause in judged[0][1]:
        row = [verdicts[clause] for _, verdicts in judged]
        if any(verdict.answer in ("upheld", "violated") or verdict.tempting for verdict in row):
            yield f"| {clause} | {' | '.join(map(_cell, row))} |"
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


def _cell(verdict: Verdict) -> str:
    return _SIGNS[verdict.answer] + (", \\*" if verdict.tempting else "")


def main() -> None:
    """Replace what stands behind the mark."""
    said = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout
    columns = list(observed())
    head = PAGE.read_text(encoding="utf-8").partition(_BEGIN)[0]
    today = dt.datetime.now(tz=dt.UTC).date()
    where = f"{today}, {said.splitlines()[0]}, Linux {platform.release()}; this machine's KVM is software."
    PAGE.write_text(head + _BEGIN + "\n" + where + "\n\n" + "\n".join(table(columns)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
