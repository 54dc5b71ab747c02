#!/usr/bin/python3.11
"""Process 1 inside: load KVM, run the script that the kernel's command line names, report its exit status.

ttyS0  the kernel's console, and what goes wrong here
ttyS1  the script's output, byte for byte
port 0xf4 (QEMU's isa-debug-exit)  the exit status + 1: 0 would look like QEMU's own failure
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import termios
import tty

MODULES = ("irqbypass", "ccp", "kvm", "kvm-amd")  # in the order of their dependencies; ccp is for kvm-amd's SEV
SYS_FINIT_MODULE = 313
EXIT_PORT = 0xF4
SIGNALLED = 100  # QEMU's exit status has 7 bits for ours, so no 128 + signal number


def mount(libc: ctypes.CDLL, kind: str, where: str) -> None:
    """Mount a file system of the kernel's own."""
    os.makedirs(where, exist_ok=True)
    if libc.mount(kind.encode(), where.encode(), kind.encode(), 0, None):
        raise OSError(ctypes.get_errno(), f"mount {where}")


def load(libc: ctypes.CDLL, module: str) -> None:
    """Load a module, if it is one (in some kernels irqbypass is built in)."""
    path = f"/modules/{module}.ko"
    if not os.path.exists(path):
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if libc.syscall(SYS_FINIT_MODULE, fd, b"", 0):
        raise OSError(ctypes.get_errno(), f"load {module}")


def run(words: list[str]) -> int:
    """Run a Python script with its output on the second serial port."""
    port = os.open("/dev/ttyS1", os.O_RDWR | os.O_NOCTTY)
    tty.setraw(port)
    actions = [(os.POSIX_SPAWN_DUP2, port, 1), (os.POSIX_SPAWN_DUP2, port, 2)]
    child = os.posix_spawn(sys.executable, [sys.executable, *words], os.environ, file_actions=actions)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    termios.tcdrain(port)
    return status if status >= 0 else SIGNALLED - status


def main() -> int:
    """Set the machine up and run the script."""
    libc = ctypes.CDLL(None, use_errno=True)
    for kind, where in (("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/tmp")):
        mount(libc, kind, where)
    for module in MODULES:
        load(libc, module)
    with open("/work/arguments", encoding="utf-8") as file:
        words = file.read().split("\0")
    os.chdir("/work")
    return run(words)


if __name__ == "__main__":
    os.environ.update(PYTHONPATH="/work:/work/src:/work/tests", PYTHONDONTWRITEBYTECODE="1", HOME="/tmp")
    os.environ.update(PATH="/usr/bin", PVH_NESTED="1")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    verdict = 126
    try:
        verdict = main()
    finally:
        with open("/dev/port", "wb", buffering=0) as ports:
            ports.seek(EXIT_PORT)
            ports.write(bytes([min(verdict, 126) + 1]))
