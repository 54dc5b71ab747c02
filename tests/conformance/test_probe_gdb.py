"""The GDB remote protocol asks QEMU at any kernel's entry point; what is no stub is refused in words."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pvh.conformance.probe.facts import Observation
from pvh.conformance.probe.gdb import probe_by_gdb
from pvh.conformance.probe.kernel import probe_path
from pvh.conformance.probe.verdicts import judge
from pvh.conformance.probe.vmm import VMMS, Accel, Probe, run_vmm
from pvh.demo import demo_path
from pvh.errors import EngineError, UsageError
from pvh.kernel.read import read_kernel

needs_qemu = pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64 here")
ACCELS = ["tcg", pytest.param("kvm", marks=pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK),
                                                              reason="no /dev/kvm here"))]  # fmt: skip


@contextmanager
def stopped(kernel: str, where: Path, *more: str, accel: str = "tcg") -> Generator[str]:
    """Start QEMU stopped with a kernel; give its stub's address."""
    words = ["qemu-system-x86_64", "-accel", accel, "-m", "256", "-nodefaults", "-display", "none", "-S",
             "-gdb", f"unix:{where},server=on,wait=off", "-kernel", kernel, *more]  # fmt: skip
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as qemu:
        try:
            for _ in range(200):
                if where.exists():
                    break
                time.sleep(0.02)
            yield f"unix:{where}"
        finally:
            qemu.kill()


def answers(seen: Observation) -> dict[str, str]:
    return {verdict.clause: verdict.answer for verdict in judge(seen)}


@needs_qemu
@pytest.mark.parametrize("accel", ACCELS)
def test_it_sees_what_the_probe_kernel_sees(accel: Accel, tmp_path: Path) -> None:
    module = tmp_path / "module"
    module.write_bytes(b"sixteen bytes or more")
    more = ("-M", "microvm", "-initrd", str(module), "-append", "a b")
    with stopped(probe_path(), tmp_path / "gdb", *more, accel=accel) as address:
        seen = probe_by_gdb(address, read_kernel(probe_path()), 30.0)
    booted = run_vmm(VMMS["qemu-microvm"], Probe(accel=accel))
    same = ("eax", "esp", "ebp", "cr0", "cr4", "eflags", "cs", "ds", "gdtr.base", "gdtr.limit", "idtr.limit", "dr7",
            "tr.limit", "code.intact", "bss.nonzero", "start_info.version", "start_info.memmap_entries")  # fmt: skip
    assert {name: seen.facts[name] for name in same} == {name: booted.facts[name] for name in same}
    assert (seen.facts["cmdline"], seen.facts["module0.head"]) == ("a b", module.read_bytes()[:16].hex())
    mine, theirs = answers(seen), answers(booted)
    assert {clause for clause in mine if "not seen" not in (mine[clause], theirs[clause])
            and mine[clause] != theirs[clause]} == set()  # fmt: skip
    assert mine["tr"] == "violated"


@needs_qemu
@pytest.mark.parametrize("machine", ["pc", "q35"])
@pytest.mark.parametrize("accel", ACCELS)
def test_any_kernel_will_do(accel: Accel, machine: str, tmp_path: Path) -> None:
    with stopped(demo_path(), tmp_path / "gdb", "-M", machine, accel=accel) as address:
        seen = probe_by_gdb(address, read_kernel(demo_path()), 30.0)
    assert {clause for clause, answer in answers(seen).items() if answer == "violated"} == {"tr"}


@needs_qemu
def test_an_entry_that_is_never_reached(tmp_path: Path) -> None:
    with (
        stopped(demo_path(), tmp_path / "gdb", "-M", "microvm") as address,
        pytest.raises(EngineError, match=r"no answer in time.*--timeout"),
    ):
        probe_by_gdb(address, read_kernel(probe_path()), 1.0)


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nobody to talk to"):
        probe_by_gdb(f"unix:{tmp_path}/gdb", read_kernel(probe_path()), 1.0)


@pytest.mark.parametrize("address", ["here", "localhost:http"])
def test_no_address(address: str) -> None:
    with pytest.raises(UsageError, match="no address of a stub"):
        probe_by_gdb(address, read_kernel(probe_path()), 1.0)


def _hang_up(line: socket.socket) -> None:
    line.recv(64)


def _babble(line: socket.socket) -> None:
    while line.recv(4096):
        line.sendall(b"+$E01#a6")


@pytest.mark.parametrize(("act", "said"), [(_hang_up, "closed the line"), (_babble, "does not describe its registers")])
def test_what_is_no_stub_is_named(act: Callable[[socket.socket], None], said: str) -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        line, _ = server.accept()
        with line:
            try:
                act(line)
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        with pytest.raises(EngineError, match=said):
            probe_by_gdb(f"127.0.0.1:{server.getsockname()[1]}", read_kernel(probe_path()), 5.0)
    finally:
        server.close()
        thread.join(5)
