"""Run pvh in a Python that looks like another host's: `python pretend.py windows|macos|hardened COMMAND [...]`.

PRETEND, in the environment, names a folder for the wheel of unicorn as the host has it.
What such a Python lacks is taken away, and what it would refuse is refused, before anything of pvh is imported. It is
still Linux below: what the C libraries of the others do is not seen here.
"""

from __future__ import annotations

import ctypes
import importlib.abc
import mmap
import os
import select
import signal
import subprocess  # noqa: F401  # pyright: ignore[reportUnusedImport] - it takes what is left here for Unix
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NoReturn

# Python's documentation, "Availability: Unix" and "not Windows". Those that only start or look after other processes,
# or that the standard library takes for granted once it has been imported here, may stay.
_MODULES = {"fcntl", "grp", "posix_ipc", "pty", "pwd", "resource", "syslog", "termios", "tty"}
_OS = """
    uname fork forkpty memfd_create pread pwrite preadv pwritev preadv2 pwritev2 geteuid getegid getuid getgid
    getpgid getpgrp setpgid setsid tcgetpgrp tcsetpgrp sysconf confstr pathconf makedev mkfifo mknod openpty ttyname
    statvfs fchown fchmod chown lchown getloadavg sched_yield sched_getaffinity sched_setaffinity posix_fallocate
    posix_fadvise posix_spawn sendfile splice copy_file_range lockf killpg wait wait3 wait4 waitid getgroups
    initgroups nice sync eventfd pidfd_open getrandom getxattr setxattr fdatasync pipe2 chroot fchdir O_CLOEXEC
    O_NOFOLLOW O_DIRECTORY O_NONBLOCK O_SYNC O_DSYNC O_NOCTTY O_PATH O_TMPFILE O_NOATIME O_DIRECT SEEK_DATA
    SEEK_HOLE MFD_CLOEXEC MFD_ALLOW_SEALING RTLD_LAZY RTLD_NOW RTLD_GLOBAL RTLD_LOCAL WNOHANG EX_USAGE
"""
_SIGNAL = """
    alarm setitimer getitimer pause pthread_kill pthread_sigmask sigwait sigpending siginterrupt sigtimedwait
    sigwaitinfo SIG_BLOCK SIG_UNBLOCK SIG_SETMASK
"""
_WINDOWS_SIGNALS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"}
_DARWIN_LACKS = """
    memfd_create MFD_CLOEXEC MFD_ALLOW_SEALING preadv2 pwritev2 eventfd pidfd_open splice copy_file_range
    sched_getaffinity sched_setaffinity posix_fadvise posix_fallocate getrandom getxattr setxattr pipe2 O_PATH
    O_TMPFILE O_NOATIME O_DIRECT
"""
_O_BINARY = 0x8000  # Windows' value; O_LARGEFILE of x86-64 Linux, which changes nothing


class _Absent(importlib.abc.MetaPathFinder):
    """Finds that some modules are not there."""

    def __init__(self, names: set[str]) -> None:
        self.names = names
        for name in names:
            sys.modules.pop(name, None)

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        if name in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def _without(module: ModuleType, names: str) -> None:
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)


def _wheel(library: str) -> None:
    """Have the package unicorn as the host's wheel has it: this one's library under another name, in another place."""
    spec = find_spec("unicorn")
    assert spec
    assert spec.origin
    place = os.environ["PRETEND"]
    os.makedirs(os.path.join(place, "unicorn", "lib"), exist_ok=True)
    with open(os.path.join(place, "unicorn", "__init__.py"), "w"):
        pass
    real = os.path.join(os.path.dirname(spec.origin), "lib", "libunicorn.so.2")
    with suppress(FileExistsError):
        os.symlink(real, os.path.join(place, "unicorn", "lib", library))
    sys.path.insert(0, place)


def windows() -> None:
    """Be CPython on 64-bit Windows."""
    _wheel("unicorn.dll")
    sys.meta_path.insert(0, _Absent(_MODULES))
    real_open, real_select = os.open, select.select
    real_mmap: Any = mmap.mmap
    _without(os, _OS)
    os.O_BINARY = _O_BINARY  # type: ignore[attr-defined]
    os.supports_dir_fd = set()

    def binary_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is not None:
            raise NotImplementedError("dir_fd unavailable on this platform")
        if not flags & _O_BINARY and sys._getframe(1).f_globals["__name__"].startswith("pvh"):
            raise AssertionError(f"{path!r} is opened as text: what is read and written would not be its bytes")
        return real_open(path, flags, mode)

    def socket_select(*lists: Any) -> Any:
        if any(isinstance(item, int) for items in lists[:3] for item in items):
            raise OSError(10038, "an operation was attempted on something that is not a socket")
        return real_select(*lists)

    class Mapping(real_mmap):  # type: ignore[misc]
        def __new__(
            cls,
            fileno: int,
            length: int,
            tagname: Any = None,  # noqa: ARG004
            access: int = 0,
            offset: int = 0,
        ) -> Any:
            return super().__new__(cls, fileno, length, access=access or mmap.ACCESS_DEFAULT, offset=offset)

    os.open, select.select, mmap.mmap = binary_open, socket_select, Mapping  # type: ignore[assignment,misc]
    _without(select, "poll epoll kqueue")
    _without(mmap, " ".join(name for name in dir(mmap) if name.startswith(("MAP_", "PROT_", "MADV_"))))
    mmap.ALLOCATIONGRANULARITY = 65536  # type: ignore[misc]
    numbers = {name for name in dir(signal) if name.startswith("SIG") and not name.startswith("SIG_")}
    _without(signal, " ".join(numbers - _WINDOWS_SIGNALS))
    _without(signal, _SIGNAL)
    real_init = ctypes.CDLL.__init__

    def init(self: ctypes.CDLL, name: str | None, *args: Any, **kwargs: Any) -> None:
        if name is None:
            raise TypeError("argument of type 'NoneType' is not iterable")
        real_init(self, name, *args, **kwargs)

    replaced: Any = ctypes.CDLL
    replaced.__init__ = init
    sys.platform = "win32"
    os.environ["PROCESSOR_ARCHITECTURE"] = "AMD64"


def macos() -> None:
    """Be CPython on macOS on one of Apple's own processors: pages of 16 KiB, and no machine code of ours."""
    _wheel("libunicorn.2.dylib")
    uname = os.uname()
    name = os.uname_result(("Darwin", uname.nodename, "24.0.0", "Darwin Kernel Version 24.0.0", "arm64"))
    os.uname = lambda: name
    _without(os, _DARWIN_LACKS)
    _without(select, "epoll")
    _without(signal, "SIGRTMIN SIGRTMAX sigtimedwait sigwaitinfo SIGPWR SIGPOLL SIGSTKFLT")
    mmap.PAGESIZE = mmap.ALLOCATIONGRANULARITY = 16384  # type: ignore[misc]
    _without(mmap, "MAP_POPULATE MAP_STACK MAP_DENYWRITE MAP_EXECUTABLE MAP_NORESERVE")
    sys.platform = "darwin"
    real = os.open

    def without_proc(path: Any, *args: Any, **kwargs: Any) -> int:
        if isinstance(path, str) and path.startswith(("/proc", "/sys")):
            raise FileNotFoundError(2, "No such file or directory", path)
        return real(path, *args, **kwargs)

    os.open = without_proc


def hardened() -> None:
    """Be a Linux whose policy forbids memory that can be written and executed."""
    real: Any = mmap.mmap

    class Mapping(real):  # type: ignore[misc]
        def __new__(cls, *args: Any, prot: int = mmap.PROT_READ | mmap.PROT_WRITE, **kwargs: Any) -> Any:
            if prot & mmap.PROT_EXEC:
                raise PermissionError(13, "Permission denied")
            return super().__new__(cls, *args, prot=prot, **kwargs)

    mmap.mmap = Mapping  # type: ignore[misc]


def main() -> NoReturn:
    with suppress(ImportError):
        import capstone  # noqa: F401  # pyright: ignore[reportUnusedImport] - its wheel has a library for this host only

    host, *argv = sys.argv[1:]
    tempfile.__dict__["_O_TMPFILE_WORKS"] = host == "hardened"
    {"windows": windows, "macos": macos, "hardened": hardened}[host]()
    from pvh.cli import main as pvh  # only now

    sys.exit(pvh(argv))


if __name__ == "__main__":
    main()
