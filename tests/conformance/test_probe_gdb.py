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

from elfwriter import Elf, Load, entry_note, notes
from pvh.conformance.probe.facts import BY_GDB, Observation
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
@pytest.mark.parametrize("accel", ACCELS)
def test_it_says_what_it_saw_and_how(accel: Accel, tmp_path: Path) -> None:
    with stopped(demo_path(), tmp_path / "gdb", "-M", "q35", accel=accel) as address:
        seen = probe_by_gdb(address, read_kernel(demo_path()), 30.0)
        again = probe_by_gdb(address, read_kernel(demo_path()), 30.0)  # it stands at the entry now
    for found in ({verdict.clause: verdict.evidence for verdict in judge(one)} for one in (seen, again)):
        assert found["entry.eip"] == "stopped at PHYS32_ENTRY, and not at e_entry before"
        assert found["segments.flat"] == "as the stub's monitor shows them"
        assert found["memory.loaded"] == "the beginning of each segment is as in its file"


@needs_qemu
@pytest.mark.parametrize("accel", ACCELS)
def test_a_machine_that_comes_to_e_entry_first_has_not_entered_right(accel: Accel, tmp_path: Path) -> None:
    """QEMU enters at the note of the file that it was given; the other file calls that place its e_entry."""
    code = b"\x90" * 31 + b"\xf4"
    booted, claimed = tmp_path / "booted", tmp_path / "claimed"
    for path, entry, e_entry in ((booted, 0x100000, 0x100000), (claimed, 0x100010, 0x100000)):
        made = Elf((Load(0x100000, code), notes(entry_note(entry))), header={"entry": e_entry})
        path.write_bytes(made.build())
    with stopped(str(booted), tmp_path / "gdb", "-M", "pc", accel=accel) as address:
        seen = probe_by_gdb(address, read_kernel(str(claimed)), 30.0)
    found = {verdict.clause: verdict for verdict in judge(seen)}["entry.eip"]
    assert (found.answer, found.evidence) == ("violated", "entered at the ELF header's e_entry")
    assert seen.facts["eip.offset"] == -0x10
    with stopped(str(booted), tmp_path / "gdb2", "-M", "pc", accel=accel) as address:
        right = probe_by_gdb(address, read_kernel(str(booted)), 30.0)
    assert answers(right)["entry.eip"] == "upheld"


def test_what_is_not_seen_is_not_called_kept() -> None:
    """A stub that shows neither hidden parts of segments nor memory, and that took no breakpoint at e_entry."""
    seen = Observation("a stub", BY_GDB, {"cr0": 0x11, "ebx": 0})
    found = answers(seen)
    clauses = ("entry.eip", "entry.mode", "segments.flat", "memory.loaded", "memory.bss-zero", "tr")
    assert {found[clause] for clause in clauses} == {"not seen"}
    assert found["cr0"] == "upheld"


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
