"""Which engine `--engine` gives, and what is said about it."""

from __future__ import annotations

import os
import sys

import pytest

from pvh.engines import select
from pvh.engines.emulator.engine import EmulatorEngine
from pvh.engines.kvm import device, engine, probe
from pvh.engines.kvm.engine import KvmEngine
from pvh.engines.kvm.probe import Check, Probe
from pvh.errors import EngineError, NoEngine, UsageError

GOOD = Probe((Check("iret32", "IRET", passed=True),), 1_000_000, 1)
BAD = Probe((Check("iret32", "IRET", passed=True), Check("int3", "INT3 and back", passed=False, detail="x")), 1, 1)


@pytest.fixture
def said() -> list[str]:
    return []


def pretend(monkeypatch: pytest.MonkeyPatch, found: Probe | Exception) -> None:
    """Have a /dev/kvm, and its probe find this."""

    def run(_dev: int, **_: bool) -> Probe:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(device, "open_device", lambda: os.open("/dev/null", os.O_RDWR))
    monkeypatch.setattr(engine, "open_device", lambda: os.open("/dev/null", os.O_RDWR))
    monkeypatch.setattr(probe, "run_probe", run)
    monkeypatch.setattr(engine, "tsc_khz", run)


def no_kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise NoEngine("there is no /dev/kvm", hint="load kvm_intel")

    monkeypatch.setattr(device, "open_device", refuse)
    monkeypatch.setattr(engine, "open_device", refuse)


def test_auto_takes_a_kvm_that_passes_and_says_nothing(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    pretend(monkeypatch, GOOD)
    assert isinstance(select.choose("auto", said.append), KvmEngine)
    assert said == []


def test_auto_takes_the_emulator_where_kvm_fails_and_says_why(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    pretend(monkeypatch, BAD)
    before = len(os.listdir("/proc/self/fd"))
    assert isinstance(select.choose("auto", said.append), EmulatorEngine)
    assert len(said) == 1
    assert "INT3 and back" in said[0]
    assert len(os.listdir("/proc/self/fd")) <= before, "/dev/kvm is closed again"


def test_auto_without_kvm_says_so(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    no_kvm(monkeypatch)
    assert select.choose("auto", said.append).name == "emulator"
    assert said == ["using the emulator, not KVM: there is no /dev/kvm"]


def test_auto_survives_a_kvm_that_refuses_to_make_guests(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    pretend(monkeypatch, EngineError("KVM refused a virtual machine: out of memory"))
    assert select.choose("auto", said.append).name == "emulator"
    assert "KVM refused a virtual machine" in said[0]


def test_kvm_asked_for_is_taken_untested(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    pretend(monkeypatch, BAD)
    monkeypatch.setattr(probe, "run_probe", None)
    assert isinstance(select.choose("kvm", said.append), KvmEngine)
    assert said == []


def test_kvm_asked_for_and_absent_is_status_21(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    no_kvm(monkeypatch)
    with pytest.raises(NoEngine, match="there is no /dev/kvm") as caught:
        select.choose("kvm", said.append)
    assert (caught.value.status, caught.value.hint) == (21, "load kvm_intel")
    pretend(monkeypatch, EngineError("KVM refused vCPU 0", hint="try"))
    with pytest.raises(NoEngine, match="KVM refused vCPU 0"):
        select.choose("kvm", said.append)


def test_a_clock_of_instructions_is_the_emulators(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    pretend(monkeypatch, GOOD)
    with pytest.raises(UsageError, match="KVM does not count what a guest executes") as caught:
        select.choose("kvm", said.append, "instructions")
    assert (caught.value.status, caught.value.hint, said) == (2, "use --engine emulator", [])
    chosen = select.choose("auto", said.append, "instructions")
    assert (chosen.name, chosen.clock.virtual) == ("emulator", True)
    assert said == ["using the emulator, not KVM: --clock instructions needs it"]
    assert select.choose("emulator", said.append, "instructions").clock.virtual
    assert not select.choose("emulator", said.append).clock.virtual
    assert len(said) == 1


@pytest.mark.parametrize("broken", ["no module", "calibration"])
def test_no_engine_at_all_names_both_reasons(monkeypatch: pytest.MonkeyPatch, said: list[str], broken: str) -> None:
    no_kvm(monkeypatch)
    if broken == "no module":
        monkeypatch.setitem(sys.modules, "pvh.engines.emulator.engine", None)
    else:

        def fail(_: EmulatorEngine, **_options: object) -> None:
            raise EngineError("the layout is unknown")

        monkeypatch.setattr(EmulatorEngine, "__init__", fail)
    with pytest.raises(NoEngine) as caught:
        select.choose("auto", said.append)
    assert caught.value.status == 21
    assert "no /dev/kvm" in str(caught.value)
    assert ("imported" if broken == "no module" else "the layout is unknown") in str(caught.value)
