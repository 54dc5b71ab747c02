"""A person at a guest: pvh run on a terminal (a pty), what is seen there, and what is typed."""

from __future__ import annotations

import os
import pty
import select
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from pvh.initramfs import Entry, archive, program

PATIENCE = 600  # seconds that something may take to be seen; a tenth on a machine with nothing else to do

_INIT = b"""#!/bin/sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
exec setsid sh -c 'exec sh -i <>/dev/hvc0 >&0 2>&0'
"""


def shell(busybox: Path, initrd: Path) -> str:
    """Write an initramfs whose init is a shell of busybox on hvc0; return its path."""
    folders = [Entry(name, stat.S_IFDIR | 0o755) for name in ("bin", "dev", "proc", "sys")]
    programs = [program("bin/busybox", busybox.read_bytes()), Entry("bin/sh", stat.S_IFLNK | 0o777, b"busybox")]
    initrd.write_bytes(archive([*folders, *programs, program("init", _INIT)]))
    return str(initrd)


class Person:
    """Reads the terminal of a run on the emulator, and types."""

    def __init__(self, *words: object) -> None:
        self.master, slave = pty.openpty()
        self.seen = ""
        command = [sys.executable, "-m", "pvh", "run", "--engine", "emulator", "--timeout", str(PATIENCE)]
        self.process = subprocess.Popen(
            [*command, *map(str, words)], stdin=slave, stdout=slave, stderr=subprocess.PIPE, text=True
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self.master)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def see(self, text: str, seconds: float = PATIENCE) -> str:
        """Wait for a text; return what came before it, with plain line ends, and forget both."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            assert self._read(deadline), f"{text!r} is not in: {self.seen}"
        before, _, self.seen = self.seen.partition(text)
        return before

    def ask(self, prompt: str, command: str) -> str:
        """Type a command at a prompt; return what it says until the prompt comes again, which stays unread."""
        self.see(prompt)
        self.type(f"{command}\r")
        said = self.see(prompt)
        self.seen = prompt + self.seen
        return said.partition("\n")[2]

    def end(self, prompt: str, command: str) -> tuple[int, str]:
        """Type the last command at a prompt; return the run's exit status and what it told on standard error."""
        self.see(prompt)
        self.type(f"{command}\r")
        _, told = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, told

    def _read(self, deadline: float) -> bool:
        """Read what there is to see; False when that is nothing any more."""
        if not select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0]:
            return False
        try:
            said = os.read(self.master, 4096)
        except OSError:  # Linux: EIO, nobody else has the terminal open
            return False
        self.seen += said.decode(errors="replace").replace("\r", "")
        return bool(said)
