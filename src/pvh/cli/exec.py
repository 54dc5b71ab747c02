"""`pvh run --exec`: a Linux boots into one command, and the run's exit status is the command's.

The initramfs has our own init, which is told the command and tells its status by the exit port, so that nothing the
command writes can be taken for it; and a shell, which is a static busybox of the host's or comes in the user's initrd.
"""

from __future__ import annotations

import os
import stat

from pvh.errors import NotAKernel, UsageError
from pvh.hints import TYPE_CHECKING
from pvh.initramfs import Entry, archive, program
from pvh.kernel.elf import EM_X86_64, MAGIC, PT_INTERP, read_header, read_segments
from pvh.kernel.source import open_source
from pvh.plan.options import ModuleSpec
from pvh.record import replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvh.cli.session import Source
    from pvh.kernel.source import Source as File
    from pvh.outcome import Outcome
    from pvh.plan.options import BootOptions

FAILED = 125  # the exit status for a failure of ours, as `docker run` and GNU env have it
HIGHER = 126  # for a command's status that is none of 0 to 124

_PASSED = 124
_LONGEST = (1 << 17) - 1  # bytes: MAX_ARG_STRLEN of Linux, less the NUL
_INIT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "exec_init")
_PLACES = "/bin/busybox", "/usr/bin/busybox", "/usr/local/bin/busybox", "/bin/busybox.static", "/usr/bin/busybox.static"
_GET = "install Debian's busybox-static, name a static busybox with --busybox, or a Linux system with --initrd"
_FOLDERS = "bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "usr/bin", "usr/sbin"
_LINKS = ("bin/sh", b"busybox"), ("sbin/poweroff", b"/init")
_INSTALL = b"/bin/busybox --install -s\n"
_QUIET = "quiet loglevel=1"  # of the kernel, only why it cannot go on
_TOLD: dict[Source, tuple[str, ...]] = {"keys": (), "pipe": ("pipe",), "none": ("no", "input")}  # init counts them


def with_command(options: BootOptions, command: str, busybox: str | None, source: Source) -> BootOptions:
    """Return the options of a boot into a command.

    busybox  path of a static one; None: the host's
    source   where the command's input comes from
    Raises UsageError when the command is too long, when there is no shell to run it, and off platform xen.
    """
    if options.platform != "xen":
        # Linux sends what programs write to a serial port by its interrupts (drivers/tty/serial/8250), and no line of a
        # bare board's leads to a processor.
        cause = "--exec needs Xen's console: on a bare board the serial port has no interrupt, and output would be lost"
        raise UsageError(cause, hint="leave --platform bare out")
    initrd, *others = options.modules or (None,)
    text = (b"" if initrd else _INSTALL) + os.fsencode(command)
    if len(text) > _LONGEST:
        raise UsageError("the command is too long", found=f"{len(text)} bytes", wanted=f"at most {_LONGEST}")
    if initrd and busybox:
        raise UsageError("an initrd brings its own shell: --busybox goes with none", hint="leave one of them out")
    content = _behind(initrd.path, text) if initrd else _whole(busybox, text)
    module = ModuleSpec(_file_of(content), initrd.cmdline if initrd else None)
    return replace(options, modules=(module, *others), cmdline=_cmdline(options, source))


def exit_status(outcome: Outcome, say: Callable[[str], None]) -> int:
    """Return what `pvh run --exec` exits with: the command's status, or one that says there is none."""
    if outcome.ending == "interrupted":
        return outcome.status
    if outcome.ending != "exit-port":
        say("the command told no status")
        return FAILED
    if outcome.status > _PASSED:
        say(f"the command's status was {outcome.status}")
    return outcome.status if outcome.status <= _PASSED else HIGHER


def _cmdline(options: BootOptions, source: Source) -> str:
    """Return a quiet command line; what the user gives comes later and so counts more. `--` ends the kernel's words."""
    words = options.cmdline.split()
    console = () if any(word.startswith("console=") for word in words) else ("console=hvc0",)
    told = _TOLD[source]
    dashes = ("--",) if told and "--" not in words else ()
    return " ".join((*console, _QUIET, *((options.cmdline,) if words else ()), *dashes, *told))


def _whole(busybox: str | None, command: bytes) -> bytes:
    """Return an initramfs with busybox under all its names."""
    shell = _static(busybox) if busybox else _found()
    folders = [Entry(path, stat.S_IFDIR | (0o1777 if path == "tmp" else 0o755)) for path in _FOLDERS]
    links = [Entry(path, stat.S_IFLNK | 0o777, to) for path, to in _LINKS]
    return archive((*folders, program("bin/busybox", shell), *links, *_init(command)))


def _behind(initrd: str, command: bytes) -> bytes:
    """Return the user's initramfs, with an init of ours that replaces its own: Linux unpacks one after the other."""
    source = open_source(initrd)
    given = source.read(0, source.size)
    folders = [Entry(path, stat.S_IFDIR | 0o755) for path in ("dev", "proc", "sys")]
    return given + bytes(-len(given) % 4) + archive((*folders, *_init(command)))


def _init(command: bytes) -> tuple[Entry, Entry]:
    with open(_INIT, "rb") as file:
        return program("init", file.read()), Entry("command", stat.S_IFREG | 0o644, command)


def _found() -> bytes:
    """Return the host's busybox."""
    there = [path for path in _PLACES if os.path.exists(path)]
    for path in there:
        if not _unfit(open_source(path)):
            return _static(path)
    if there:
        raise UsageError(f"{_unfit(open_source(there[0]))}, so it cannot be --exec's shell", path=there[0], hint=_GET)
    raise UsageError("--exec needs a shell for the guest, and this host has no static busybox", hint=_GET)


def _static(path: str) -> bytes:
    source = open_source(path)
    reason = _unfit(source)
    if reason:
        raise UsageError(f"{reason}, so it cannot be --exec's shell", path=path, hint=_GET)
    return source.read(0, source.size)


def _unfit(source: File) -> str:
    """Say why a program cannot run by itself on an x86-64 Linux; nothing if it can."""
    try:
        if source.read(0, 4) != MAGIC:
            return "is no ELF program"
        header = read_header(source)
    except NotAKernel as error:
        return error.cause
    if (header.bits, header.machine) != (64, EM_X86_64):
        return "is no program for x86-64"
    dynamic = any(segment.type == PT_INTERP for segment in read_segments(source, header))
    return "is dynamically linked" if dynamic else ""


def _file_of(content: bytes) -> str:
    """Return the path of a file in memory with that content; it lives as long as we do."""
    fd = os.memfd_create("initramfs")
    os.fchmod(fd, 0o600)  # what others may write is not mapped
    with os.fdopen(fd, "wb", closefd=False) as file:
        file.write(content)
    return f"/proc/self/fd/{fd}"
