"""`pvh run --exec` for programs: a shell command in a Linux guest, resumed from the boot cache where it can be."""

from __future__ import annotations

import os

from pvh import given
from pvh.cache import cache_for
from pvh.cli.boot import Boot
from pvh.cli.exec import Errand, for_command, linux_alone
from pvh.guest import Guest
from pvh.guest_ended import GuestEnded
from pvh.hints import TYPE_CHECKING
from pvh.host import forget_file
from pvh.outcome import Outcome
from pvh.plan.asked import check
from pvh.plan.options import BootOptions
from pvh.record import dataclass
from pvh.trace import Trace

if TYPE_CHECKING:
    from pvh.cache import Cache
    from pvh.console import Console
    from pvh.devices.typed import Typed
    from pvh.machine import Machine, Watch


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a command in a guest.

    status   its exit status, 0 to 255
    output   what the guest's console said, in bytes: the command's output and errors, and the kernel's if it had any
    resumed  whether the guest came out of the boot cache, without a boot
    notes    what a person may want to know, a line each: why `auto` took the emulator, what was dropped from the cache
    outcome  how the guest ended

    >>> pvh.run_command(vmlinuz, "exit 3", busybox=busybox).status
    3
    """

    status: int
    output: bytes
    resumed: bool
    notes: tuple[str, ...]
    outcome: Outcome


def run_command(
    kernel: str | os.PathLike[str],
    command: str,
    options: BootOptions | None = None,
    *,
    busybox: str | None = None,
    cache: bool = True,
) -> Ran:
    """Boot the Linux at a path into one shell command, or have a guest of the boot cache go on to it; wait for its end.

    options  of the guest; the first module is an initrd that brings the shell; timeout in seconds of the host's
    busybox  the shell where there is no initrd: path of a static one; None: the host's
    cache    go on from the boot cache, and keep there what is booted: one user's files, `pvh cache list` shows them;
             on the emulator, with the host's clock, and not where a trace is to have the whole run

    The command has no input. Raises what boot() does; UsageError for a kernel that is no Linux, or without a shell;
    GuestEnded if the guest ended, or its time was up, before the command told a status.

    >>> ran = pvh.run_command(vmlinuz, "uname -s; exit 3", busybox=busybox)
    >>> ran.status, ran.output.split()
    (3, [b'Linux'])
    """
    path = given.path("a kernel", kernel)
    given.kind("a command", command, str, "a shell command as text")
    check(options or BootOptions())
    options = for_command(options or BootOptions(), busybox)
    notes: list[str] = []
    try:
        errand = Errand(path, options, command, "none")
        boot = Boot(path, options, lambda found: linux_alone(options, found), notes.append)
        with _started(errand, boot, options, cache_for(options, notes.append) if cache else None) as guest:
            outcome = guest.wait()
            output = guest.console.read()
    finally:
        forget_file(options.modules[0].path)  # of for_command()
    if outcome.ending != "exit-port":
        raise GuestEnded("the command told no status", outcome, output[-400:].decode("utf-8", "replace"))
    return Ran(outcome.status, output, errand.cached, tuple(notes), outcome)


def _started(errand: Errand, boot: Boot, options: BootOptions, cache: Cache | None) -> Guest:
    boot.timeout = options.timeout

    def make(console: Console, hear: Watch, typed: Typed) -> Machine:
        boot.console, boot.watch, boot.typed = console.hear, hear, typed
        return errand.make(boot, cache)

    engine = boot.choose()
    trace = Trace(options.trace, engine.clock.now) if options.trace else None
    return Guest(make, trace=trace, core=options.core)
