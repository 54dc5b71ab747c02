"""`pvh run`: boot a kernel; its console on standard output, everything else on standard error."""

from __future__ import annotations

import sys

from pvh.cli.boot import Boot
from pvh.cli.options import add_boot_options, boot_options, seconds
from pvh.cli.output import keep
from pvh.cli.plain import parse
from pvh.cli.session import Session
from pvh.cli.terminal import open_input, stamped, write_all
from pvh.errors import EngineError, PvhError, UsageError
from pvh.hints import TYPE_CHECKING
from pvh.record import replace

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable

    from pvh.cache import Cache
    from pvh.cli.plain import Notes
    from pvh.cli.session import Source
    from pvh.cli.timeline import TimelineFile
    from pvh.engines.engine import Engine
    from pvh.engines.exits import Exit
    from pvh.gdb.server import Server
    from pvh.hints import Any
    from pvh.kernel.record import Kernel
    from pvh.machine import Machine, Watch
    from pvh.outcome import Outcome
    from pvh.plan.options import BootOptions
    from pvh.trace import Trace


ABOUT = {
    "description": "Boot a kernel by its PVH entry. The last line on standard error says how it ended.",
    "epilog": """examples:
  pvh run demo
  pvh run vmlinuz --initrd initrd.img
  pvh run vmlinuz --exec 'uname -a'
  pvh run --engine emulator --timeout 60 --trace exits.jsonl kernel.elf
  pvh run --platform bare --vcpus 2 -m 64M kernel.elf

At a terminal every key goes to the guest, but ^] leaves. Otherwise standard input goes to its console as it comes, and
Ctrl-C asks the guest to power off; after 5 seconds, or the second time, it stops.
With --exec the exit status is the command's: 0 to 124, 126 for any higher one, 125 if pvh or the guest failed,
130 if it was interrupted.""",
}


def declare(parser: ArgumentParser | Notes) -> None:
    """Declare the options."""
    add_boot_options(parser)
    run = parser.add_argument_group("the run")
    run.add_argument("--exec", dest="command", metavar="COMMAND",
                     help="boot a Linux into one shell command; needs a static busybox, or an initrd")  # fmt: skip
    run.add_argument("--no-cache", dest="cache", action="store_false",
                     help="with --exec: boot, whatever pvh cache has")  # fmt: skip
    run.add_argument("--busybox", metavar="FILE", help="--exec's shell (default: the host's, if static)")
    run.add_argument("--input", metavar="FILE", help="what is typed (default: standard input)")
    run.add_argument("--timestamps", action="store_true", help="put the host's time before each line of output")
    run.add_argument("--on-reboot", choices=("restart", "exit"), default="exit",
                     help="what a reboot does (default exit: status 10)")  # fmt: skip
    run.add_argument("--timeout", type=seconds, metavar="S", help="end with status 13 after S seconds (or 500ms, 2m)")
    run.add_argument("--clock", choices=("host", "instructions"), default="host",
                     help="instructions: time is what the guest executes, and a run can be repeated")  # fmt: skip
    run.add_argument("--trace", metavar="FILE", help="write every exit as a JSON line")
    run.add_argument("--timeline", metavar="FILE",
                     help="what happened when: .html, or Perfetto's .json")  # fmt: skip
    run.add_argument("--gdb", metavar="PLACE", help="let gdb in at [HOST:]PORT, or unix:PATH")
    run.add_argument("--wait", action="store_true", help="do not run the guest before gdb came")
    run.add_argument("--core", metavar="FILE", help="write the guest at its end as an ELF core")
    run.add_argument("--no-patch", dest="patch", action="store_false",
                     help="never replace VMCALL in the guest's code")  # fmt: skip


def main(argv: list[str]) -> int:
    """Run the command. Under --exec every failure of ours has one status, which no command's can be."""
    if not any(word.partition("=")[0] == "--exec" for word in argv):
        return _run(argv)
    from pvh.cli.exec import FAILED

    try:
        return _run(argv)
    except PvhError as error:
        _say(str(error))
    except SystemExit as error:  # argparse has said why
        return FAILED if error.code else 0
    except (OSError, MemoryError) as error:
        _say(f"the host failed: {str(error) or 'out of memory'}")
    return FAILED


def _run(argv: list[str]) -> int:
    parsed = parse(declare, argv, prog="pvh run", **ABOUT)
    _together(parsed)
    options = boot_options(parsed)
    inputs = [parsed.kernel, *(spec.path for spec in options.modules), parsed.input, parsed.busybox]
    keep(inputs, {"--trace": options.trace, "--core": options.core, "--timeline": parsed.timeline})
    fd = open_input(parsed.input, taken="-" in inputs[:-2])  # first: a closed standard input gets a file's descriptor
    end = b"" if parsed.command is None else b"\x04"  # ^D: a terminal has no other end of input
    session = Session(fd, end=end, restart=parsed.on_reboot == "restart", say=_say)
    boot, make = _guest(parsed, options, session.source)
    if options.core:
        from pvh.core import claim_core  # only when asked for

        claim_core(options.core)
    boot.watch = trace = _trace(options, boot.choose())
    boot.console = stamped(write_all) if parsed.timestamps else write_all
    timeline: TimelineFile | None = None
    if parsed.timeline is not None:
        from pvh.cli.timeline import TimelineFile  # only when asked for

        timeline = TimelineFile(parsed.timeline, parsed.kernel, boot.choose().clock.now)
        boot.console, boot.watch = timeline.hearing(boot.console), _both(timeline.timeline.watch, boot.watch)
    debuggers = _debuggers(parsed, boot)
    machine, outcome = session.run(boot, make, debuggers)
    if debuggers:
        debuggers.close()
    if timeline:
        timeline.write(outcome)
    if outcome.failed and not machine.image.plan.ranges:  # it was resumed, without a look at the kernel
        machine.image = replace(machine.image, plan=boot.plan)
    status = _report(outcome, options, machine, is_command=parsed.command is not None)
    if trace and trace.cut:
        status = status or _cut(is_command=parsed.command is not None)
    return session.status(outcome, status)


def _together(parsed: Any) -> None:
    """Raise UsageError for an option that means something beside another alone."""
    if parsed.wait and parsed.gdb is None:
        raise UsageError("--wait is for gdb, and there is no --gdb")
    for option, given in (("--busybox", parsed.busybox), ("--no-cache", not parsed.cache)):
        if given and parsed.command is None:
            raise UsageError(f"{option} is for --exec, and there is no --exec")
    if parsed.timeline is not None:
        from pvh.cli.timeline import kind  # only when asked for

        kind(parsed.timeline)


def _debuggers(parsed: Any, boot: Boot) -> Server | None:
    """Listen for debuggers, if any may come."""
    if parsed.gdb is None:
        return None
    from pvh.gdb.server import Server  # only when asked for

    server = Server(parsed.gdb, wait=parsed.wait, say=_say)
    boot.watch = _both(server.history.watch, boot.watch)
    return server


def _guest(parsed: Any, options: BootOptions, source: Source) -> tuple[Boot, Callable[[], Machine]]:
    """Return what boots, and what makes a machine of it."""
    if parsed.command is None:

        def suited(kernel: Kernel) -> BootOptions:
            return _suited(boot, options, kernel)

        boot = Boot(parsed.kernel, options, suited, _say)
        boot.timeout = boot.plan.options.timeout  # first: what is wrong with a kernel counts more than an engine
        boot.choose()
        return boot, boot.fresh
    from pvh.cli.exec import Errand, for_command, linux_alone  # only for --exec

    options = for_command(options, parsed.busybox)
    errand = Errand(parsed.kernel, options, parsed.command, source)
    boot = Boot(parsed.kernel, options, lambda kernel: linux_alone(options, kernel), _say)
    boot.timeout = options.timeout
    boot.choose()
    cache: Cache | None = None
    if parsed.cache and parsed.timeline is None:  # it is of whole runs
        from pvh.cache import cache_for

        cache = cache_for(options, _say)
    return boot, lambda: errand.make(boot, cache)


def _say(text: str) -> None:
    print(f"pvh: {text}", file=sys.stderr, flush=True)


def _suited(boot: Boot, options: BootOptions, kernel: Kernel) -> BootOptions:
    """Return the options with what a Linux is to be told."""
    if options.platform == "bare" and kernel.is_linux:
        return _told_the_tsc(options, boot.choose().tsc_khz)
    return _for_linux(options, kernel)


def _for_linux(options: BootOptions, kernel: Kernel) -> BootOptions:
    """Return the options with the console that a Linux was not told of."""
    words = options.cmdline.split()
    if options.platform != "xen" or not kernel.is_linux or any(word.startswith("console=") for word in words):
        return options
    return _added(options, "console=hvc0", "a Linux with no console= on its command line")


def _told_the_tsc(options: BootOptions, khz: int) -> BootOptions:
    """Return the options with the TSC's frequency in a Linux's words.

    Without Xen it reads it from CPUID on Intel's processors alone, else measures it with timers that a bare board does
    not have, and waits for ever (Linux, arch/x86/kernel/tsc.c).
    """
    if any(word.startswith("tsc_early_khz=") for word in options.cmdline.split()):
        return options
    return _added(options, f"tsc_early_khz={khz}", "a Linux without Xen, and no timer to measure the TSC with")


def _added(options: BootOptions, word: str, why: str) -> BootOptions:
    """Return the options with a word more on the command line, behind those for the kernel; say so."""
    _say(f"{why}: {word} is added")
    words = options.cmdline
    kernels, dashes, inits = words.partition("--") if "--" in words.split() else (words, "", "")
    return replace(options, cmdline=f"{kernels.strip()} {word} {dashes}{inits}".strip())


def _trace(options: BootOptions, engine: Engine) -> Trace | None:
    if options.trace is None:
        return None
    from pvh.trace import Trace  # json costs milliseconds

    return Trace(options.trace, engine.clock.now, _say)


def _cut(*, is_command: bool) -> int:
    """Return the exit status of a run that is well but for its trace, which a full disk cut."""
    if not is_command:
        return EngineError.status
    from pvh.cli.exec import FAILED

    return FAILED


def _both(first: Watch, second: Watch | None) -> Watch:
    if second is None:
        return first

    def both(vcpu: int, event: Exit, answer: int | None) -> None:
        first(vcpu, event, answer)
        second(vcpu, event, answer)

    return both


def _report(outcome: Outcome, options: BootOptions, machine: Machine, *, is_command: bool) -> int:
    """Say on standard error what is worth knowing; the last line is how it ended. Return the exit status."""
    status = outcome.status
    if is_command:
        from pvh.cli.exec import exit_status

        status = exit_status(outcome, _say)
    for note in machine.image.notes:
        _say(f"note: {note}")
    for clause in outcome.hypercalls:
        _say(clause)
    if outcome.failed or outcome.changed:
        from pvh.diagnosis import explain  # only a run that went wrong pays for it

        for line in explain(outcome, machine.image):
            _say(line)
    if options.core:
        from pvh.core import write_core  # only when asked for

        try:
            for line in write_core(options.core, machine.image.ram, outcome):
                _say(line)
        except PvhError as error:
            _say(str(error))
            status = status or error.status
    _say(f"{outcome.ending} after {outcome.seconds:.2f} s on {outcome.engine}: {outcome.reason}")
    return status
