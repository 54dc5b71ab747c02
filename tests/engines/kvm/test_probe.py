"""The probe: what a KVM must execute before `--engine auto` takes it."""

from __future__ import annotations

import os

import pytest

from pvh.engines.exits import Broken, Hypercall, Shutdown
from pvh.engines.kvm import probe
from pvh.engines.kvm.probe import LOOP_NS, Probe, run_probe
from pvh.kernel.elf import read_header, read_segments
from pvh.kernel.source import open_source


def test_the_package_has_the_bytes_that_the_source_says(root: os.PathLike[str]) -> None:
    source = open_source(os.path.join(root, "tests", "guests", "kvm_probe.elf"))
    (segment,) = read_segments(source, read_header(source))
    made = source.read(segment.offset, segment.filesz)
    assert segment.paddr == 0x1000
    assert made == b"".join(code.ljust(64, b"\xcc") for code in probe._GUESTS[:-1]) + probe._GUESTS[-1]


def test_it_asks_what_the_design_lists(kvm_probe: Probe) -> None:
    assert [check.name for check in kvm_probe.checks] == ["iret32", "int3", "cmpxchg16b", "xrstor", "speed"]
    assert all(check.detail for check in kvm_probe.failing)
    assert not any(check.detail for check in kvm_probe.checks if check.passed)
    assert kvm_probe.tsc_khz > 100_000


def test_it_stops_at_the_first_failure_when_asked(kvm_device: int, kvm_probe: Probe) -> None:
    asked = run_probe(kvm_device, until_failure=True)
    assert len(asked.failing) == min(1, len(kvm_probe.failing))
    assert [c.name for c in asked.checks] == [c.name for c in kvm_probe.checks][: len(asked.checks)]


def test_it_leaves_nothing_behind(kvm_device: int) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    run_probe(kvm_device, timed=False)
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("writes", "failures", "passed", "detail"),
    [
        ([(1, 0)], [], True, ""),
        ([(0, 0)], [], False, "wrong result"),
        ([], ["KVM cannot go on"], False, "KVM cannot go on"),
        ([], [], False, "did not end"),
    ],
)
def test_a_verdict_of_one_write(
    writes: list[tuple[int, int]], failures: list[str], *, passed: bool, detail: str
) -> None:
    verdict = probe._judge(writes, failures, 1)
    assert verdict[0] is passed
    assert detail in verdict[1]


def test_a_software_kvm_fails_for_its_speed_alone() -> None:
    """Such a KVM runs guest kernels at 1.7 MIPS (facts/engines.md); the emulator is 60 times faster."""
    assert probe._judge([(1, 0), (1, LOOP_NS)], [], 2) == (True, "")
    slow = int(3000 / 1.7e6 * 1e9)
    assert probe._judge([(1, 0), (1, slow)], [], 2) == (False, "3000 instructions took 1.8 ms (1.7 MIPS)")
    assert not probe._judge([(1, 0)], [], 2)[0], "the second write never came"


def test_what_happened_is_said_in_words() -> None:
    assert probe._describe(Shutdown()) == "a triple fault"
    assert probe._describe(Broken("KVM cannot go on")) == "KVM cannot go on"
    assert "Hypercall" in probe._describe(Hypercall(1, (0, 0, 0, 0, 0), 32, 0))
