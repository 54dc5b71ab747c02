"""docs/probe.md's table is what the VMMs do: each column is asked again, where its VMM is here."""

from __future__ import annotations

import os
import shutil

import pytest
from tools.loaders import FIRECRACKER, LIBKRUN

from pvh.conformance.probe.verdicts import judge
from pvh.engines.kvm.probe import run_probe
from tools import probe_table

HAS_KVM = os.access("/dev/kvm", os.R_OK | os.W_OK)
PAGE = probe_table.PAGE.read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|\n ").split(" | ")] for line in PAGE.splitlines() if line[:2] == "| "]
HEAD = next(row for row in ROWS if row[0] == "clause")
TABLE = [row for row in ROWS if len(row) == len(HEAD) and row is not HEAD]


def software_kvm() -> bool:
    """Tell whether this machine's KVM fails at what genuine ones do."""
    dev = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    try:
        return bool(run_probe(dev, timed=False).failing)
    finally:
        os.close(dev)


def why_not(name: str) -> str:
    """Return why a column cannot be asked again here; "" if it can."""
    if name.startswith("qemu-") and (shutil.which("qemu-system-x86_64") is None or probe_table.version() not in PAGE):
        return "not the QEMU that the page names"
    carried = {"Firecracker 1.12.1": FIRECRACKER, "libkrun": LIBKRUN}.get(name)
    if carried is not None and not carried.path.exists():
        return f"no {name} here: make test-loaders"
    if carried is not None or "kvm" in name.lower():
        if not HAS_KVM:
            return "no /dev/kvm here"
        if not software_kvm():
            return "the page's KVM is software, this machine's is not"
    return ""


def test_it_has_a_column_for_each() -> None:
    assert HEAD[1:] == list(probe_table.COLUMNS)
    assert len(TABLE) > 15


SLOW = ("qemu-pc, KVM", "qemu-q35, KVM", "Firecracker 1.12.1", "libkrun")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in probe_table.COLUMNS]
)
def test_a_column_is_current(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := why_not(name):
        pytest.skip(reason)
    monkeypatch.setenv("PATH", os.environ["PATH"])  # on_firecracker adds to it
    found = {verdict.clause: probe_table.cell(verdict) for verdict in judge(probe_table.COLUMNS[name]())}
    at = HEAD.index(name)
    assert {row[0]: row[at] for row in TABLE} == {row[0]: found[row[0]] for row in TABLE}
