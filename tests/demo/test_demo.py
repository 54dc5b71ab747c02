"""The bundled demo kernel says what it was given, for people; issue 2, section 1: `make boot` without a kernel."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

from pvh.build.builder import build
from pvh.demo import demo_initramfs, demo_path
from pvh.engines.select import choose
from pvh.kernel.read import read_kernel
from pvh.machine import Machine
from pvh.outcome import Outcome
from pvh.plan.options import GIB, Abi, BootOptions, ModuleSpec, Platform
from pvh.plan.planner import plan


def boot(options: BootOptions) -> tuple[list[str], Outcome]:
    image = build(plan(read_kernel(demo_path()), options))
    said = bytearray()
    outcome = Machine(image, choose("emulator", print), said.extend).run()
    image.ram.close()
    return said.decode().splitlines(), outcome


def test_it_reports_and_powers_off_by_hypercall() -> None:
    said, outcome = boot(BootOptions(memory=5 * GIB, cmdline="hello world", timeout=20))
    assert said[0] == "Hello from PVH: entered in 32-bit protected mode, paging off"
    assert said[1].endswith(", version 1")
    assert said[2] == 'command line: "hello world"'
    assert said[3] == "  0x0000000000000000 - 0x00000000fbffffff RAM"
    assert "  0x0000000100000000 - 0x0000000143ffffff RAM" in said
    assert "  0x00000000feff8000 - 0x00000000feffffff reserved" in said
    assert "RAM: 5120 MiB" in said
    assert said[-1] == "Powering off"
    assert (outcome.ending, outcome.status) == ("poweroff", 0)


@pytest.mark.slow
def test_make_boot_has_debians_kernel_say_hello() -> None:
    """What the README says of it, typed in this checkout."""
    root = pathlib.Path(__file__).resolve().parents[2]
    words = ["make", "-o", ".venv/.set-up", "boot"]  # it may not be set up anew around this very test
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # a make may run this
    done = subprocess.run(words, cwd=root, env=alone, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[    0.000000] Linux version ")
    assert "hello from user space" in done.stdout.lower()
    assert "pvh: poweroff after" in done.stderr


def test_without_xen_it_leaves_by_the_exit_port() -> None:
    said, outcome = boot(BootOptions(platform="bare", timeout=20))
    assert said[2] == "command line: none"
    assert said[-1] == "No Xen here; leaving by the exit port"
    assert (outcome.ending, outcome.status) == ("exit-port", 0)


@pytest.mark.parametrize("platform", ["xen", "bare"])
@pytest.mark.parametrize(
    ("abi", "name", "behind"),
    [
        ("v0", "version 0", ', command line "one"'),
        ("draft-c", "Draft C", ""),
        ("v1", "version 1", ', command line "one"'),
    ],
)
def test_it_knows_each_layout(tmp_path: pathlib.Path, abi: Abi, name: str, behind: str, platform: Platform) -> None:
    module = tmp_path / "m"
    module.write_bytes(b"x" * 1234)
    modules = (ModuleSpec(str(module), "one"), ModuleSpec(str(module)))
    said, outcome = boot(BootOptions(cmdline="c", abi=abi, platform=platform, modules=modules, timeout=20))
    assert said[1].endswith(name)
    assert said[3].startswith("module 0 at 0x")
    assert said[3].endswith(": 1234 bytes" + behind)
    assert said[4].startswith("module 1 at 0x")
    assert outcome.status == 0


def test_the_initramfs_holds_an_init_and_ends() -> None:
    data = demo_initramfs()
    assert data.startswith(b"070701")
    assert b"init\0" in data[:128]
    assert b"TRAILER!!!\0" in data[-64:]
    assert b"Hello from user space" in data
