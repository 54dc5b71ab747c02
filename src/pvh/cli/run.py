"""`pvh run`: boot a kernel; its console on standard output, everything else on standard error."""

from __future__ import annotations

import os
import signal
import sys

from pvh.build.builder import build
from pvh.cli.options import add_boot_options, boot_options
from pvh.cli.plain import parse
from pvh.engines.select import choose
from pvh.hints import TYPE_CHECKING
from pvh.kernel.read import read_kernel
from pvh.machine import Machine
from pvh.plan.planner import plan

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable
    from types import FrameType

    from pvh.cli.plain import Notes
    from pvh.machine import Watch
    from pvh.outcome import Outcome
    from pvh.plan.options import BootOptions

_LONGEST = 1e9  # seconds, some thirty years

_DESCRIPTION = "Boot a kernel by its PVH entry. The last line on standard error says how it ended."
_EXAMPLES = """examples:
  pvh run vmlinuz --initrd initrd.img --cmdline 'console=hvc0'
  pvh run --engine emulator --timeout 60 --trace exits.jsonl kernel.elf
  pvh run --platform bare --vcpus 2 -m 64M kernel.elf"""


def _seconds(text: str) -> float:
    """Return a span of time as typed. Raises argparse's error for what is none."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _LONGEST:
        from argparse import ArgumentTypeError  # only a mistake pays for it

        raise ArgumentTypeError(f"{text!r} is no number of seconds from 0 to {_LONGEST:.0f}")
    return seconds


def _declare(parser: ArgumentParser | Notes) -> None:
    add_boot_options(parser)
    run = parser.add_argument_group("the run")
    run.add_argument("--timeout", type=_seconds, metavar="S", help="end with status 13 after S seconds")
    run.add_argument("--trace", metavar="FILE", help="write every exit as a JSON line")
    run.add_argument("--core", metavar="FILE", help="write guest memory and registers as an ELF core at the end")
    run.add_argument("--no-patch", dest="patch", action="store_false",
                     help="never replace VMCALL in the guest's code (KVM without KVM_CAP_XEN_HVM)")  # fmt: skip


def main(argv: list[str]) -> int:
    """Run the command."""
    parsed = parse(_declare, argv, prog="pvh run", description=_DESCRIPTION, epilog=_EXAMPLES)
    options = boot_options(parsed)
    made = plan(read_kernel(parsed.kernel), options)
    for warning in made.warnings:
        _say(f"warning: {warning}")
    watch = _watch(options)
    engine = choose(options.engine, _say)
    image = build(made)
    machine = Machine(image, engine, _console(), watch)
    _end_on_signals(machine)
    outcome = machine.run()
    _report(outcome, options, machine)
    return outcome.status


def _say(text: str) -> None:
    print(f"pvh: {text}", file=sys.stderr, flush=True)


def _watch(options: BootOptions) -> Watch | None:
    if options.trace is None:
        return None
    from pvh.trace import Trace  # json costs milliseconds

    return Trace(options.trace)


def _console() -> Callable[[bytes], None]:
    """Return a writer to standard output that keeps nothing back: even a kill loses nothing."""

    def write(data: bytes) -> None:
        while data:
            data = data[os.write(1, data) :]

    return write


def _end_on_signals(machine: Machine) -> None:
    def end(number: int, _frame: FrameType | None) -> None:
        machine.end("interrupted", f"{signal.Signals(number).name} came")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)


def _report(outcome: Outcome, options: BootOptions, machine: Machine) -> None:
    """Say on standard error what is worth knowing; the last line is how it ended."""
    if outcome.failed or outcome.changed:
        from pvh.diagnosis import explain  # only a run that went wrong pays for it

        for line in explain(outcome, machine.image):
            _say(line)
    if options.core:
        from pvh.core import write_core  # only when asked for

        for line in write_core(options.core, machine.image.ram, outcome):
            _say(line)
    _say(f"{outcome.ending} after {outcome.seconds:.2f} s on {outcome.engine}: {outcome.reason}")
