"""A mapped file that is cut must not kill the process; a SIGBUS of anybody else's must go where it went before."""

from __future__ import annotations

import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

from build.plans import file_source
from pvh.build import sigbus
from pvh.build.ram import GuestRam

SOURCE = os.path.join(os.path.dirname(sigbus.__file__), "sigbus.S")
SIZE = 1 << 20

PREPARE = """
import ctypes, mmap, os, signal, sys, threading
from pvh.build.ram import GuestRam
fd = os.open(sys.argv[1], os.O_RDWR)
ram = GuestRam(((0, 4 << 20),))
def own_fault():
    "Touch a mapping of ours that nobody guards, behind the end of its file."
    other = os.open(sys.argv[1] + ".other", os.O_RDWR | os.O_CREAT)
    os.ftruncate(other, 4096)
    region = mmap.mmap(other, 4096)
    os.ftruncate(other, 0)
    return region[0]
"""


@pytest.fixture
def path(tmp_path: pathlib.Path) -> str:
    return file_source(tmp_path / "mapped", b"\xaa" * SIZE).path


def run(path: str, script: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.run(
        [sys.executable, "-c", PREPARE + script, path],
        capture_output=True, text=True, check=False, env={"PYTHONPATH": paths}, timeout=60,
    )  # fmt: skip


@pytest.mark.skipif(not shutil.which("as"), reason="needs binutils")
def test_the_bytes_are_what_the_source_assembles_to(tmp_path: pathlib.Path) -> None:
    made, flat = str(tmp_path / "o"), str(tmp_path / "bin")
    subprocess.run(["as", "--64", "-o", made, SOURCE], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", made, flat], check=True)
    with open(flat, "rb") as stream:
        assert stream.read() == sigbus._CODE


def test_cut_pages_read_as_zeroes_and_are_counted(path: str) -> None:
    ran = run(
        path,
        "assert ram.map_file(1 << 20, 1 << 20, fd, 0)\n"
        "assert ram.read(1 << 20, 1) == b'\\xaa'\n"
        "os.truncate(fd, 0x80000)\n"
        "assert ram.read(0x17f000, 0x1000) == b'\\xaa' * 0x1000\n"
        "assert ram.read(0x180000, 0x3000) == bytes(0x3000)\n"
        "assert ram.write(0x190000, b'kept') and ram.read(0x190000, 5) == b'kept\\0'\n"
        "print(ram.lost_pages)",
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "4\n", "")


def test_truncation_takes_what_the_guest_had_stored_along(path: str) -> None:
    ran = run(
        path,
        "assert ram.map_file(0, 1 << 20, fd, 0)\n"
        "assert ram.write(0x90000, b'guest') and ram.write(0x10000, b'guest')\n"
        "os.truncate(fd, 0x80000)\n"
        "print(ram.read(0x90000, 5), ram.read(0x10000, 5), ram.lost_pages)",
    )
    assert (ran.returncode, ran.stdout) == (0, "b'\\x00\\x00\\x00\\x00\\x00' b'guest' 1\n")


def test_threads_that_meet_the_same_cut_pages_lose_no_store(path: str) -> None:
    ran = run(
        path,
        "assert ram.map_file(0, 1 << 20, fd, 0)\n"
        "os.truncate(fd, 0)\n"
        "libc = ctypes.CDLL(None)\n"  # memset releases the GIL, so the threads really race
        "def store(lane):\n"
        "    for page in range(256):\n"
        "        libc.memset(ctypes.c_void_p(ram.blocks[0].host + page * 4096 + lane * 64), 0x11 * (lane + 1), 64)\n"
        "threads = [threading.Thread(target=store, args=(lane,)) for lane in range(8)]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
        "wanted = b''.join(bytes([0x11 * (lane + 1)]) * 64 for lane in range(8))\n"
        "assert all(ram.read(page * 4096, 512) == wanted for page in range(256))\n"
        "print(ram.lost_pages)",
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "256\n", "")


def test_mending_makes_every_cut_page_zero_at_once(path: str) -> None:
    ran = run(
        path,
        "assert ram.map_file(0x1000, 0xff000, fd, 0x1000)\n"
        "assert ram.mend() == 0\n"
        "os.truncate(fd, 0x2001)\n"  # the page that holds the last byte is still there
        "print(ram.mend(), 0xfd, ram.read(0x2000, 2), ram.read(0x3000, 1))",
    )
    assert (ran.returncode, ran.stdout) == (0, "253 253 b'\\xaa\\x00' b'\\x00'\n")


def test_mending_goes_by_each_mapping(path: str) -> None:
    source = file_source(path)
    ram = GuestRam(((0, 2 * SIZE),))
    assert ram.map_file(0, SIZE, source.fd, 0)
    assert ram.map_file(SIZE, SIZE // 2, source.fd, SIZE // 2)
    os.truncate(path, SIZE - 4096)
    assert ram.mend() == 2
    assert ram.read(SIZE // 2, SIZE // 2) == ram.read(SIZE, SIZE // 2) == b"\xaa" * (SIZE // 2 - 4096) + bytes(4096)
    ram.close()


def test_elsewhere_a_fault_still_kills_by_sigbus(path: str) -> None:
    assert run(path, "assert ram.map_file(0, 1 << 20, fd, 0)\nown_fault()").returncode == -signal.SIGBUS


def test_a_signal_that_was_sent_still_kills(path: str) -> None:
    ran = run(path, "assert ram.map_file(0, 1 << 20, fd, 0)\nos.kill(os.getpid(), signal.SIGBUS)\nprint('alive')")
    assert (ran.returncode, ran.stdout) == (-signal.SIGBUS, "")


def test_an_earlier_handler_gets_what_was_sent(path: str) -> None:
    ran = run(
        path,
        "signal.signal(signal.SIGBUS, lambda *_: print('python'))\n"
        "assert ram.map_file(0, 1 << 20, fd, 0)\n"
        "os.kill(os.getpid(), signal.SIGBUS)",
    )
    assert (ran.returncode, ran.stdout) == (0, "python\n")


def test_faulthandler_still_reports_a_fault_elsewhere(path: str) -> None:
    ran = run(path, "import faulthandler; faulthandler.enable()\nassert ram.map_file(0, 1 << 20, fd, 0)\nown_fault()")
    assert ran.returncode == -signal.SIGBUS
    assert "Fatal Python error: Bus error" in ran.stderr


def test_an_ignored_signal_stays_ignored_but_a_fault_elsewhere_kills(path: str) -> None:
    ran = run(
        path,
        "signal.signal(signal.SIGBUS, signal.SIG_IGN)\n"
        "assert ram.map_file(0, 1 << 20, fd, 0)\n"
        "os.kill(os.getpid(), signal.SIGBUS)\n"
        "print('alive', flush=True)\n"
        "own_fault()",
    )
    assert (ran.returncode, ran.stdout) == (-signal.SIGBUS, "alive\n")


def test_the_handler_is_there_only_while_something_is_mapped(path: str) -> None:
    ran = run(
        path,
        "from pvh.build import sigbus\n"
        "def owner():\n"
        "    now = sigbus._Action()\n"
        "    sigbus._sigaction(None, now)\n"
        "    return now.handler\n"
        "before, other = owner(), GuestRam(((0, 1 << 20),))\n"
        "assert ram.map_file(0, 1 << 20, fd, 0) and other.map_file(0, 1 << 20, fd, 0)\n"
        "ours = sigbus._native().handler\n"
        "assert owner() == ours != before\n"
        "ram.close()\n"
        "assert owner() == ours\n"
        "other.close()\n"
        "assert owner() == before",
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_whoever_took_the_signal_since_keeps_it(path: str) -> None:
    ran = run(
        path,
        "assert ram.map_file(0, 1 << 20, fd, 0)\n"
        "signal.signal(signal.SIGBUS, lambda *_: print('later'))\n"
        "ram.close()\n"
        "os.kill(os.getpid(), signal.SIGBUS)",
    )
    assert (ran.returncode, ran.stdout) == (0, "later\n")


def test_more_ranges_than_there_are_slots_are_not_guarded(path: str) -> None:
    ran = run(
        path,
        "from pvh.build import sigbus\n"
        "ram = GuestRam(((0, 8 << 20),))\n"
        "mapped = [ram.map_file(page * 4096, 4096, fd, 0) for page in range(sigbus._COUNT + 1)]\n"
        "assert mapped == [True] * sigbus._COUNT + [False]",
    )
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("machine", ["aarch64", "i686"])
def test_other_hosts_have_no_guard(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "h", "6", "v", machine)))
    assert sigbus._native.__wrapped__() is None


@pytest.mark.parametrize("call", ["mmap", "mprotect"])
def test_without_an_executable_page_there_is_no_guard(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under SELinux without execmem."""
    real = ctypes.CDLL(None)

    class Libc:
        def __getattr__(self, name: str) -> object:
            if name != call:
                return getattr(real, name)

            def refuse(*_: object) -> int:
                return -1 if name == "mprotect" else 2**64 - 1

            return refuse

    def library(*_: object, **__: object) -> Libc:
        return Libc()

    monkeypatch.setattr(ctypes, "CDLL", library)
    assert sigbus._native.__wrapped__() is None
