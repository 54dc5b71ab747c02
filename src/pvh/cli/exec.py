"""`pvh run --exec`: a Linux boots into one command, and the run's exit status is the command's.

The initramfs has our own init, which reads the command from a port once everything is ready, and tells its status by
the exit port, so that nothing the command writes can be taken for it; and a shell, which is a static busybox of the
host's or comes in the user's initrd. So the guest that waits for its command is the same for every command, and is kept
in the boot cache.
"""

from __future__ import annotations

import os
import stat
import struct

from pvh.errors import NotAKernel, PvhError, UsageError
from pvh.hints import TYPE_CHECKING
from pvh.host import file_of
from pvh.initramfs import Entry, archive, program
from pvh.kernel.elf import EM_X86_64, MAGIC, PT_INTERP, read_header, read_segments
from pvh.kernel.source import open_source
from pvh.plan.options import ModuleSpec
from pvh.record import replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvh.cache import Cache
    from pvh.cli.boot import Boot
    from pvh.cli.session import Source
    from pvh.clock import Clock
    from pvh.kernel.record import Kernel
    from pvh.kernel.source import Source as File
    from pvh.machine import Machine
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
_INSTALL = Entry("setup", stat.S_IFREG | 0o644, b"/bin/busybox --install -s\n")
_QUIET = "quiet loglevel=1"  # of the kernel, only why it cannot go on
# What init reads: struct timespec; struct rand_pool_info with 32 bytes, worth 256 bits; where input comes from; length.
_ORDER = "<QQII32sII"
_INPUT: dict[Source, int] = {"keys": 0, "pipe": 1, "none": 2}


class Errand:
    """Makes machines that run a command: from the boot cache if it has the guest, else by booting it."""

    def __init__(self, kernel: str, options: BootOptions, command: str, source: Source) -> None:
        """Take the options of for_command(). source: where the command's input comes from.

        Raises UsageError when the command is too long.
        """
        self._kernel = kernel
        self._options = options
        self._command = os.fsencode(command)
        self._source: Source = source
        if len(self._command) > _LONGEST:
            found = f"{len(self._command)} bytes"
            raise UsageError("the command is too long", found=found, wanted=f"at most {_LONGEST}")
        self.cached = False

    def order(self, clock: Clock) -> bytes:
        """Return what init reads: another each time, unless time is what the guest executes."""
        seconds, ns = divmod(clock.wallclock(), 1_000_000_000)
        random = bytes(32) if clock.virtual else os.urandom(32)
        head = struct.pack(_ORDER, seconds, ns, 256, 32, random, _INPUT[self._source], len(self._command))
        return head + self._command

    def make(self, boot: Boot, cache: Cache | None) -> Machine:
        """Return a machine. boot: boots and resumes guests."""
        name, clock = self._key(boot, cache), boot.choose().clock
        machine = self._resumed(boot, cache, name) if cache and name else None
        self.cached = machine is not None
        if machine is None:
            machine = boot.fresh()
            if cache and name:
                kept = machine
                machine.command(self.order(clock), lambda: self._keep(cache, name, kept))
                return machine
        machine.command(self.order(clock))
        return machine

    def _key(self, boot: Boot, cache: Cache | None) -> str:
        if cache is None or boot.choose().name != "emulator" or self._kernel == "-":
            return ""
        from pvh.cache import key

        return key(self._kernel, self._options, boot.choose().name)

    def _resumed(self, boot: Boot, cache: Cache, name: str) -> Machine | None:
        snapshot = cache.find(name, self._kernel, replace(self._options, timeout=boot.timeout))
        try:
            return boot.resumed(snapshot) if snapshot else None
        except (PvhError, ValueError, TypeError, KeyError, AttributeError, struct.error) as error:
            cache.drop(name, f"it does not fit together: {error}")
            return None

    def _keep(self, cache: Cache, name: str, machine: Machine) -> None:
        cache.keep(name, machine)
        machine.command(self.order(machine.engine.clock))  # the time has passed


def for_command(options: BootOptions, busybox: str | None) -> BootOptions:
    """Return the options of a boot into a command.

    busybox  path of a static one; None: the host's
    Raises UsageError when there is no shell to run it, and off platform xen.
    """
    if options.platform != "xen":
        # Linux sends what programs write to a serial port by its interrupts (drivers/tty/serial/8250), and no line of a
        # bare board's leads to a processor.
        cause = "--exec needs Xen's console: on a bare board the serial port has no interrupt, and output would be lost"
        raise UsageError(cause, hint="leave --platform bare out")
    initrd, *others = options.modules or (None,)
    if initrd and busybox:
        raise UsageError("an initrd brings its own shell: --busybox goes with none", hint="leave one of them out")
    content = _behind(initrd.path) if initrd else _whole(busybox)
    module = ModuleSpec(file_of("initramfs", content), initrd.cmdline if initrd else None)
    return replace(options, modules=(module, *others), cmdline=_cmdline(options))


def linux_alone(options: BootOptions, kernel: Kernel) -> BootOptions:
    """Return the options if the kernel is a Linux. Raises UsageError."""
    if not kernel.is_linux:
        raise UsageError("--exec boots a Linux, and this kernel does not say it is one", path=kernel.path)
    return options


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


def _cmdline(options: BootOptions) -> str:
    """Return a quiet command line; what the user gives comes later and so counts more."""
    words = options.cmdline.split()
    console = () if any(word.startswith("console=") for word in words) else ("console=hvc0",)
    return " ".join((*console, _QUIET, *((options.cmdline,) if words else ())))


def _whole(busybox: str | None) -> bytes:
    """Return an initramfs with busybox under all its names."""
    shell = _static(busybox) if busybox else _found()
    folders = [Entry(path, stat.S_IFDIR | (0o1777 if path == "tmp" else 0o755)) for path in _FOLDERS]
    links = [Entry(path, stat.S_IFLNK | 0o777, to) for path, to in _LINKS]
    return archive((*folders, program("bin/busybox", shell), *links, _init(), _INSTALL))


def _behind(initrd: str) -> bytes:
    """Return the user's initramfs, with an init of ours that replaces its own: Linux unpacks one after the other."""
    source = open_source(initrd)
    given = source.read(0, source.size)
    folders = [Entry(path, stat.S_IFDIR | 0o755) for path in ("dev", "proc", "sys")]
    return given + bytes(-len(given) % 4) + archive((*folders, _init()))


def _init() -> Entry:
    with open(_INIT, "rb") as file:
        return program("init", file.read())


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
