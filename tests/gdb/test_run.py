"""gdb at guests of `pvh run --gdb`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

GUESTS = Path(__file__).parents[1] / "guests"
HELLO = GUESTS / "hello.elf"


@contextmanager
def debugged(folder: Path, *words: str) -> Generator[tuple[subprocess.Popen[str], str], None, None]:
    """Run pvh with a debugger's socket; give the process and the socket's path once it listens."""
    path = str(folder / "gdb.socket")
    command = [sys.executable, "-m", "pvh", "run", "--gdb", f"unix:{path}", "--timeout", "120", *words]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr
        line = process.stderr.readline()
        while "target remote" not in line:
            assert line, "pvh ended"
            line = process.stderr.readline()
        yield process, path
    finally:
        process.kill()
        process.communicate()


def gdb(path: str, *commands: str) -> str:
    if shutil.which("gdb") is None:
        pytest.skip("no gdb here")
    words = ["gdb", "-nx", "-batch", "-ex", "set confirm off", "-ex", f"target remote {path}"]
    for command in commands:
        words += ["-ex", command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=110, check=False, stdin=subprocess.DEVNULL)
    return done.stdout + done.stderr


def entry(symbol: str, guest: Path = HELLO) -> int:
    said = subprocess.run(["nm", guest], capture_output=True, text=True, check=True).stdout
    return next(int(line.split()[0], 16) for line in said.splitlines() if line.split()[-1] == symbol)


def engines() -> list[str]:
    return ["emulator", *(["kvm"] if os.access("/dev/kvm", os.R_OK | os.W_OK) else [])]


@pytest.mark.parametrize("engine", engines())
def test_a_guest_is_met_at_its_entry_and_stepped(engine: str, tmp_path: Path) -> None:
    with debugged(tmp_path, "--engine", engine, "--wait", str(HELLO)) as (process, path):
        said = gdb(path, "print/x $pc", "print/x *(int*)$ebx", "stepi", "print/x $pc", "stepi", "print/x $dx",
                   "set $esi = $esi + 6", "monitor start_info", "monitor foo", "kill")  # fmt: skip
        start = entry("_start")
        assert f"$1 = {start:#x}" in said
        assert "$2 = 0x336ec578" in said
        assert f"$3 = {start + 5:#x}" in said
        assert "$4 = 0xe9" in said
        assert "start_info at 0x" in said
        assert "there is no `monitor foo`; there are" in said
        process.wait(10)
        assert process.returncode == 130


@pytest.mark.parametrize("engine", engines())
def test_breakpoints_stop_it_and_it_runs_to_its_end(engine: str, tmp_path: Path) -> None:
    loop = entry("_start") + 9
    with debugged(tmp_path, "--engine", engine, "--wait", str(HELLO)) as (process, path):
        said = gdb(path, f"break *{loop:#x}", "continue", "continue", "continue", "print (char)*(char*)$esi", "delete",
                   "continue")  # fmt: skip
        assert said.count(f"Breakpoint 1, {loop:#010x}") == 3
        assert "'l'" in said, "the third letter of Hello is next"
        assert "exited normally" in said or "exited with code 00" in said
        out, err = process.communicate(timeout=30)
        assert out == "Hello from PVH\n"
        assert process.returncode == 0
        assert "exit-port" in err


@pytest.mark.parametrize("engine", engines())
def test_gdb_watches_by_steps_where_it_is_told_to(engine: str, tmp_path: Path) -> None:
    with debugged(tmp_path, "--engine", engine, "--wait", str(HELLO)) as (process, path):
        said = gdb(path, "set can-use-hw-watchpoints 0", "watch $edx", "continue", "kill")
        assert "Watchpoint 1: $edx" in said
        assert "New value = 233" in said, "the first instruction that sets %edx is met"
        process.wait(10)


@pytest.mark.parametrize("engine", engines())
def test_processors_are_threads_and_a_running_guest_is_interrupted(engine: str, tmp_path: Path) -> None:
    """The storm of up and down goes on while no debugger is there, and stops where one comes."""
    with debugged(tmp_path, "--engine", engine, "--vcpus", "4", str(GUESTS / "storm.elf")) as (process, path):
        said = gdb(path, "info threads", "thread 2", "print/x $pc", "stepi", "thread 1", "stepi", "monitor hypercalls",
                   "monitor events", "detach")  # fmt: skip
        assert said.count("Thread") >= 4
        assert "$1 = 0x" in said
        assert "vcpu_op" in said
        assert "to console" in said
        process.wait(100)
        assert process.returncode == 0


def test_interrupt_over_tcp() -> None:
    """^C at gdb's prompt: the protocol's own byte, here from a client of two lines."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pvh", "run", "--engine", "emulator", "--gdb", str(port), "--wait"]
    process = subprocess.Popen([*command, str(GUESTS / "echo.elf")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    try:
        assert process.stderr
        assert f"127.0.0.1:{port}" in process.stderr.readline()
        with socket.create_connection(("127.0.0.1", port), 10) as stream:
            stream.settimeout(20)
            stream.sendall(b"$vCont;c#a8")
            assert stream.recv(100) == b"+"
            stream.sendall(b"\x03")
            assert stream.recv(100).startswith(b"$T02thread:1;#")
            stream.sendall(b"$garbage#00$Z0,zz#00$m" + b"f" * 100 + b",10#00")
            stream.sendall(b"$k#6b")
            while stream.recv(1000):
                pass
        process.wait(20)
        assert process.returncode == 130
    finally:
        process.kill()
        process.communicate()


def start_kernel(log: str) -> int:
    """Return where start_kernel is: what calls it says so on its way (the stack of a warning, or kallsyms)."""
    return int(next(line for line in log.splitlines() if line.endswith(" T start_kernel")).split()[0], 16)


@pytest.mark.slow
@pytest.mark.parametrize("engine", engines()[:1])
def test_into_long_mode_and_to_start_kernel_of_debians_kernel(
    engine: str, specimen: Callable[[str], Path], tmp_path: Path
) -> None:
    """nokaslr has it at the address that the kernel's own /proc/kallsyms tells of."""
    kernel = str(specimen("vmlinuz-cloud-6.1"))
    words = ["--engine", engine, "--cmdline", "console=hvc0 nokaslr", "--wait", kernel]
    listing = subprocess.run(
        [sys.executable, "-m", "pvh", "run", "--engine", engine, "--busybox", str(specimen("busybox")),
         "--cmdline", "nokaslr", "--exec", "grep ' T start_kernel$' /proc/kallsyms", kernel],
        capture_output=True, text=True, timeout=110, check=True,
    ).stdout  # fmt: skip
    address = start_kernel(listing)
    with debugged(tmp_path, *words) as (process, path):
        said = gdb(path, "print/x $pc", "stepi 3", "print/x $cr0", f"hbreak *{address & 0xFFFFFFFF:#x}",
                   "continue", "disconnect",
                   f"target remote {path}", "print/x $rip", "print/x $efer & 0x500", "x/2i $rip", "monitor hypercalls",
                   "kill")  # fmt: skip
        assert "$1 = 0x1000" in said
        assert "64-bit code now" in said
        assert f"Breakpoint 1, {address & 0xFFFFFFFF:#x}" in said
        assert f"$3 = {address:#x}" in said
        assert "$4 = 0x500" in said
        process.wait(20)


def test_places_and_words_that_are_none(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "pvh", "run", "--engine", "emulator"]
    for words, why in (
        (["--gdb", "nonsense"], "is no port"),
        (["--gdb", "70000"], "is no port"),
        (["--gdb", f"unix:{tmp_path}/no/socket"], "cannot listen"),
        (["--wait"], "there is no --gdb"),
    ):
        done = subprocess.run([*run, *words, str(HELLO)], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 2
        assert why in done.stderr


def test_a_signal_ends_a_guest_that_waits(tmp_path: Path) -> None:
    with debugged(tmp_path, "--engine", "emulator", "--wait", str(HELLO)) as (process, _):
        process.send_signal(signal.SIGINT)
        process.wait(4)  # at once: it is not asked to power off, and given 5 s for that
        assert process.returncode == 130
