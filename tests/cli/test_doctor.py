"""`pvh doctor`: which engines are usable, which not, why, and what to do."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from pvh.cli import doctor
from pvh.cli.doctor import examine, render
from pvh.engines.kvm import device, hypercall_page, probe
from pvh.engines.kvm.probe import Check, Probe
from pvh.errors import EngineError, NoEngine
from pvh.record import replace

T = TypeVar("T")


def giving(value: T) -> Callable[[object], T]:
    """Return a function of one argument that gives this."""
    return lambda _: value


@pytest.fixture
def good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for a KVM that passes."""
    monkeypatch.setattr(device, "open_device", giving(os.open("/dev/null", os.O_RDWR)))
    monkeypatch.setattr(hypercall_page, "intercepted", giving(True))  # noqa: FBT003 - the answer
    checks = (Check("iret32", "IRET in 32-bit", passed=True),)
    monkeypatch.setattr(probe, "run_probe", giving(Probe(checks, 2_500_000, 3_000_000)))


def test_a_missing_device_has_a_reason_and_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = examine(str(tmp_path / "kvm"))
    kvm = report.engines[0]
    assert (kvm.name, kvm.usable) == ("kvm", False)
    assert kvm.reason == "there is no /dev/kvm"
    assert "load kvm_intel or kvm_amd" in kvm.hint
    monkeypatch.setenv("COLUMNS", "200")
    text = render(report)
    assert "kvm: not usable: there is no /dev/kvm" in text
    assert f"  to do: {kvm.hint}" in text
    assert report.auto == "emulator"


@pytest.mark.usefixtures("good")
def test_a_good_kvm_is_what_auto_takes() -> None:
    report = examine()
    assert report.auto == "kvm"
    text = render(report)
    assert "kvm: usable\n" in text
    assert "hypercalls: passed on by KVM" in text
    assert "guests' TSC: 2500.000 MHz" in text
    assert "ok     iret32" in text


@pytest.mark.usefixtures("good")
def test_each_failing_check_is_listed_with_what_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = (
        Check("iret32", "IRET in 32-bit", passed=True),
        Check("int3", "INT3 and back", passed=False, detail="a triple fault"),
    )
    monkeypatch.setattr(probe, "run_probe", giving(Probe(checks, 1, 1)))
    report = examine()
    assert (report.engines[0].usable, report.engines[0].trusted, report.auto) == (True, False, "emulator")
    text = render(report)
    assert "kvm: usable with limits: it fails at int3" in text
    assert "FAILS  int3        INT3 and back: a triple fault" in text


@pytest.mark.usefixtures("good")
def test_a_kvm_that_makes_no_guests_is_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> Probe:
        raise EngineError("KVM refused a virtual machine: out of memory", hint="free some")

    monkeypatch.setattr(probe, "run_probe", fail)
    kvm = examine().engines[0]
    assert (kvm.usable, kvm.reason, kvm.hint) == (False, "KVM refused a virtual machine: out of memory", "free some")


def test_no_engine_at_all_is_status_21(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: object) -> int:
        raise NoEngine("it is not there", hint="get it", found="2.0", wanted="2.1")

    monkeypatch.setattr(device, "open_device", refuse)
    monkeypatch.setattr(doctor, "choose", refuse)
    assert doctor.main([]) == 21
    text = capsys.readouterr().out
    assert "emulator: not usable: it is not there (found 2.0; wanted 2.1)" in text
    assert "--engine auto takes: none" in text


def test_missing_codecs_are_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(module: str) -> object:
        return None if module == "zstandard" else object()

    monkeypatch.setattr(doctor, "find_spec", find_spec)
    report = examine()
    (zstd,) = [part for part in report.codecs if part.purpose == "zstd"]
    assert (zstd.available, zstd.hint) == (False, "pip install zstandard")
    assert all(part.available and not part.hint for part in report.codecs if part is not zstd)
    assert "  absent  zstd        pip install zstandard" in render(report)


def test_lines_fit_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = (Check("iret32", "IRET without paging", passed=False, detail="KVM cannot go on, " + "00 " * 60),)
    engine = doctor.EngineReport("kvm", usable=True, trusted=False, reason="it fails " + "often " * 30, checks=checks)
    monkeypatch.setenv("COLUMNS", "60")
    text = render(replace(examine(), engines=(engine,)))
    assert max(map(len, text.splitlines())) <= 60
    assert "\n" + " " * 21 + "00 00" in text


def test_json_has_the_same_and_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.main(["--json"])
    report = json.loads(capsys.readouterr().out)
    assert [engine["name"] for engine in report["engines"]] == ["kvm", "emulator"]
    assert report["python"] == ".".join(map(str, sys.version_info[:3]))
    assert report["auto"] in {"kvm", "emulator"}
    assert {"purpose", "module", "available", "hint"} == set(report["codecs"][0])
