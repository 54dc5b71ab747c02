"""pvh on hosts that we do not have: inspect, plan and the emulator need nothing that only Linux has.

pretend.py makes Python look like theirs. That shows which modules, names and flags we ask for, not how their C
libraries behave: no line of this has run on Windows or macOS.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from pvh.engines.emulator.libunicorn import library

HERE = Path(__file__).parent
GUESTS = HERE.parent / "guests"
HELLO = str(GUESTS / "hello.elf")
HOSTS = pytest.mark.parametrize("host", ["windows", "macos", "hardened"])
OTHERS = pytest.mark.parametrize("host", ["windows", "macos"])


class Host:
    """Runs pvh there. Standard streams have the encoding of Windows' pipes."""

    def __init__(self, folder: Path) -> None:
        self.environment = {**os.environ, "PRETEND": str(folder), "PYTHONIOENCODING": "cp1252"}

    def __call__(self, host: str, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, str(HERE / "pretend.py"), host, *words]
        return subprocess.run(command, input=given, capture_output=True, env=self.environment, timeout=300, check=False)

    def output(self, host: str, *words: str, given: bytes = b"") -> bytes:
        done = self(host, *words, given=given)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


@pytest.fixture
def on(tmp_path: Path) -> Host:
    folder = tmp_path / "wheel"
    folder.mkdir()
    return Host(folder)


@HOSTS
def test_a_guest_says_hello(on: Host, host: str) -> None:
    assert on.output(host, "run", "--engine", "emulator", "--timeout", "60", HELLO) == b"Hello from PVH\n"


@OTHERS
def test_auto_says_why_it_is_not_kvm(on: Host, host: str) -> None:
    done = on(host, "run", "--timeout", "60", HELLO)
    assert done.returncode == 0
    assert b"KVM is a part of Linux, which this is not" in done.stderr
    refused = on(host, "run", "--engine", "kvm", HELLO)
    assert refused.returncode == 21
    assert b"use --engine emulator" in refused.stderr


def test_kvm_is_not_offered_without_atomic_operations(on: Host) -> None:
    done = on("hardened", "run", "--engine", "kvm", HELLO)
    assert done.returncode == 21
    assert b"forbids executable memory" in done.stderr


@HOSTS
def test_processors_interrupt_each_other(on: Host, host: str) -> None:
    said = on.output(host, "run", "--engine", "emulator", "--vcpus", "2", "--timeout", "120", str(GUESTS / "smp.elf"))
    assert said.endswith(b"smp vcpus=2 shared=60000 ipis=2 ok\n")


@HOSTS
def test_input_reaches_the_guest(on: Host, host: str) -> None:
    given = b"one\r\ntwo\x1a\nq\n"  # what a text file of Windows would lose
    done = on(host, "run", "--engine", "emulator", "--timeout", "60", str(GUESTS / "echo.elf"), given=given)
    assert b"one\r\ntwo\x1a\n" in done.stdout, (done.stdout, done.stderr)


@HOSTS
def test_inspect_and_plan_say_the_same(on: Host, host: str) -> None:
    for words in (["inspect", HELLO, "--json"], ["plan", HELLO, "--json"]):
        here = subprocess.run([sys.executable, "-m", "pvh", *words], capture_output=True, check=True).stdout
        assert json.loads(on.output(host, *words)) == json.loads(here)
    for words in (["inspect", HELLO], ["plan", HELLO], ["--help"], ["run", "--help"], ["--version"]):
        assert on.output(host, *words)


@HOSTS
def test_doctor_tells(on: Host, host: str) -> None:
    report = json.loads(on.output(host, "doctor", "--json"))
    kvm, emulator = report["engines"]
    assert emulator["trusted"]
    assert report["auto"] == "emulator"
    assert not kvm["usable"]
    assert kvm["hint"] == "use --engine emulator"


@HOSTS
def test_trace_and_core_are_written(on: Host, host: str, tmp_path: Path) -> None:
    trace, core = tmp_path / "trace", tmp_path / "core"
    on.output(host, "run", "--engine", "emulator", "--memory", "16M", "--trace", str(trace), "--core", str(core), HELLO)
    assert all(json.loads(line)["exit"] for line in trace.read_bytes().splitlines())
    assert core.read_bytes()[:7] == b"\x7fELF\2\1\1"


@HOSTS
def test_check_fills_memory_and_moves_on(on: Host, host: str) -> None:
    done = on(host, "check", HELLO, "--memory", "16M", "--json")
    assert done.returncode in (0, 15), done.stderr.decode()
    assert json.loads(done.stdout)


@OTHERS
@pytest.mark.slow
def test_linux_reaches_user_space(on: Host, host: str, tmp_path: Path, specimen: Callable[[str], Path]) -> None:
    initrd = tmp_path / "hello.cpio"
    initrd.write_bytes(subprocess.run([sys.executable, "-m", "pvh.demo"], capture_output=True, check=True).stdout)
    said = on.output(
        host, "run", "--engine", "emulator", "--cmdline", "earlyprintk=xen console=hvc0", "--initrd", str(initrd),
        "--timeout", "280", str(specimen("vmlinuz-cloud-6.1")),
    )  # fmt: skip
    assert b"Hello from user space" in said


def test_variadic_functions_have_their_fixed_parameters_declared() -> None:
    """On Apple's arm64 the others are passed on the stack, so ctypes must know where they begin (its documentation)."""
    spec = find_spec("unicorn")
    assert spec
    assert spec.origin
    header = next(Path(spec.origin).parent.rglob("unicorn.h")).read_text()
    variadic = {
        name: fixed.count(",") for name, fixed in re.findall(r"\b(uc_\w+)\s*\(([^;{}()]*),\s*\.\.\.\s*\)\s*;", header)
    }
    assert set(variadic) >= {"uc_ctl", "uc_hook_add"}
    for name in ("uc_ctl", "uc_hook_add"):
        assert len(getattr(library(), name).argtypes) == variadic[name] + 1
