"""When the engine probes its KVM, and whom it tells."""

from __future__ import annotations

import errno
import os

import pytest

from engines.kvm.scenarios import Run, ended, guest_image
from pvh.engines.exits import Broken
from pvh.engines.kvm import cpuid, probe
from pvh.engines.kvm import engine as module
from pvh.engines.kvm import ioctl as kvm
from pvh.engines.kvm.engine import KvmEngine
from pvh.engines.kvm.probe import Check, Probe
from pvh.engines.kvm.vm import tsc_khz
from pvh.errors import EngineError

PORTS, BREAKS = 0, 16
CX16 = 1 << 13
BAD = Probe((Check("int3", "INT3 and back", passed=False, detail="x"), Check("speed", "speed", passed=True)), 1, 1)


@pytest.fixture
def untested(kvm_device: int) -> KvmEngine:
    return KvmEngine(os.dup(kvm_device))


def broken(engine: KvmEngine) -> str:
    with Run(engine, guest_image(BREAKS)) as run:
        run.go()
        (event,) = run.exits
        assert isinstance(event, Broken)
        return event.detail


def test_a_guest_that_runs_well_pays_for_no_probe(untested: KvmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "run_probe", None)
    with Run(untested, guest_image(PORTS)) as run:
        assert ended(run.go())


def test_a_guest_that_breaks_is_told_what_its_kvm_fails_at(
    untested: KvmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(_: int, **__: bool) -> Probe:
        return BAD

    monkeypatch.setattr(probe, "run_probe", find)
    assert broken(untested).endswith("; this KVM fails at int3 (pvh doctor tells more)")


def test_a_probe_that_fails_does_not_hide_what_broke(untested: KvmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int, **__: bool) -> Probe:
        raise EngineError("KVM refused a virtual machine")

    monkeypatch.setattr(probe, "run_probe", fail)
    assert "KVM_INTERNAL_ERROR_EMULATION" in broken(untested)


def test_its_tsc_frequency_is_the_probes(untested: KvmEngine, kvm_probe: Probe) -> None:
    assert untested.tsc_khz == pytest.approx(kvm_probe.tsc_khz, rel=0.01)


def test_before_linux_5_18_a_vcpu_tells_it(kvm_device: int, kvm_probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    """KVM_CAP_VM_TSC_CONTROL (api.rst, 4.56)."""
    asked: list[int] = []
    call = kvm.call

    def refuse_first(fd: int, request: int, argument: bytearray | bytes | int = 0) -> int:
        asked.append(request)
        if asked.count(kvm.GET_TSC_KHZ) == 1 and request == kvm.GET_TSC_KHZ:
            raise OSError(errno.ENOTTY, "no such request")
        return call(fd, request, argument)

    monkeypatch.setattr(kvm, "call", refuse_first)
    before = sorted(os.listdir("/proc/self/fd"))
    assert tsc_khz(kvm_device) == pytest.approx(kvm_probe.tsc_khz, rel=0.01)
    assert asked.count(kvm.GET_TSC_KHZ) == 2
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("hardware", [True, False])
def test_software_is_not_believed(kvm_device: int, monkeypatch: pytest.MonkeyPatch, *, hardware: bool) -> None:
    """Without VMX and SVM below, CMPXCHG16B and XSAVE are emulated, or are not."""
    monkeypatch.setattr(module, "virtualises", lambda: hardware)
    (leaf,) = [entry for entry in KvmEngine(os.dup(kvm_device)).cpuid() if entry.leaf == 1]
    (told,) = [entry for entry in cpuid.supported(kvm_device) if entry.leaf == 1]
    assert leaf.ecx & CX16 == (told.ecx & CX16 if hardware else 0)
