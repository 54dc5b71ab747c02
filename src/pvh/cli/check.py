"""`pvh check`: does a kernel rely on anything that this ABI does not promise?"""

from __future__ import annotations

import os
import sys

from pvh.cli import ctrl_c
from pvh.cli.check_differential import refuse_others
from pvh.cli.check_differential import run as differential
from pvh.cli.check_progress import CLEAR, Progress
from pvh.cli.options import add_boot_options, boot_options, count, some_seconds
from pvh.cli.output import claim_file, keep, write_file
from pvh.cli.plain import parse
from pvh.errors import PvhError, UsageError
from pvh.hints import TYPE_CHECKING, Any
from pvh.record import replace

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable

    from pvh.cli.plain import Notes
    from pvh.conformance.checker import Task
    from pvh.conformance.milestone import Milestone
    from pvh.conformance.report import Report
    from pvh.engines.engine import Engine
    from pvh.kernel.record import Kernel
    from pvh.plan.options import BootOptions

_LINUX = "console:Booting .*kernel on Xen PVH"

ABOUT = {
    "description": "Boot a kernel again and again, each time with something else that the ABI leaves open, and give a"
    " verdict for every clause. The engine is the emulator unless --engine names another.",
    "epilog": """examples:
  pvh check kernel.elf
  pvh check --until 'console:login:' --initrd initrd.img vmlinuz
  pvh check --profile nasty --profile edge --json kernel.elf
  pvh check --html report.html kernel.elf

Without --until a kernel has booted that says the same first line, and ends the same way, as it does with libxenguest's
values; a Linux, once it says that it boots on Xen PVH. docs/clauses.md lists the clauses, docs/check.md the rest.
The exit status is 15 when a clause is violated, the kernel does not boot with libxenguest's values either, or nothing
tells whether it does.""",
}


def declare(parser: ArgumentParser | Notes) -> None:
    """Declare the options."""
    add_boot_options(parser)
    check = parser.add_argument_group("the check")
    check.add_argument("--until", action="append", default=[], metavar="WHAT",
                       help="what tells that it booted: console:REGEX, hypercall:NAME, instructions:N, long-mode,"
                       " ends:HOW; repeated, one after the other")  # fmt: skip
    check.add_argument("--profile", action="append", default=[], metavar="NAME",
                       help="try this profile only; repeatable (default all)")  # fmt: skip
    check.add_argument("--seed", type=int, metavar="N", help="what chance starts from (default 1)")
    check.add_argument("--jobs", type=count, metavar="N", help="processes (default one a processor)")
    check.add_argument("--timeout", type=some_seconds, default=60.0, metavar="S",
                       help="give the first boot up after S seconds (default 60)")  # fmt: skip
    check.add_argument("--differential", action="store_true",
                       help="no profiles: emulator and KVM side by side, exit by exit, until they differ")  # fmt: skip
    check.add_argument("--html", metavar="FILE", help="write the report as one HTML file, too")
    check.add_argument("--json", action="store_true", help="print the report as JSON (docs/json.md)")


def main(argv: list[str]) -> int:
    """Check a kernel and print what came of it. Returns the exit status."""
    parsed = parse(declare, argv, prog="pvh check", **ABOUT)
    if parsed.differential:
        refuse_others(parsed, argv)
    ctrl_c.end_at_once(CLEAR if sys.stderr.isatty() else "")
    from pvh.kernel.read import read_kernel

    options = replace(boot_options(parsed), timeout=None)
    if parsed.html is not None:
        _claim(parsed, options)
    if parsed.differential:
        return differential(read_kernel(parsed.kernel), options, parsed, _say)
    with Progress(quiet=parsed.json or parsed.html == "-") as progress:
        progress.stage(f"reading {parsed.kernel}")
        report, engine = _checked(read_kernel(parsed.kernel), options, parsed, progress)
        _print(report, parsed)
        if parsed.html is None:
            return report.status
        progress.stage("booting it once more, for the page")
        try:
            _write_html(parsed.html, report, engine)
        except PvhError as error:  # the verdicts are out; JSON is one object
            progress.clear()
            _say(str(error))
            return report.status or error.status
    return report.status


def _claim(parsed: Any, options: BootOptions) -> None:
    """Raise UsageError for a page that cannot be written, before the work is done."""
    if parsed.html == "-" and parsed.json:
        raise UsageError("--html - and --json: both are for standard output", hint="give the page a file")
    keep([parsed.kernel, *(spec.path for spec in options.modules)], {"--html": parsed.html})
    claim_file(parsed.html)


def _checked(kernel: Kernel, options: BootOptions, parsed: Any, progress: Progress) -> tuple[Report, Engine]:
    """Return the report, and the engine it was made on."""
    from pvh.conformance.boot import Limits
    from pvh.conformance.checker import Task
    from pvh.conformance.report import check
    from pvh.engines.select import choose

    options, way = _settled(kernel, options, parsed)
    engine = choose("emulator" if options.engine == "auto" else options.engine, _say)
    late = next((milestone for milestone in way if milestone.needs_emulator), None)
    if late and engine.name == "kvm":
        raise UsageError(
            "--until: only the emulator tells when that is", found=str(late), hint="leave --engine kvm out"
        )
    task = Task(kernel, options, way, Limits(seconds=parsed.timeout))
    _known(parsed.profile, task)
    jobs, seed = parsed.jobs or os.cpu_count() or 1, 1 if parsed.seed is None else parsed.seed
    return check(task, engine, seed, jobs, only=_chosen(parsed.profile), tell=progress.tell), engine


def _print(report: Report, parsed: Any) -> None:
    """Print the report, unless the page goes there."""
    if parsed.json:
        import json

        from pvh.conformance.report import as_dict

        print(json.dumps(as_dict(report), indent=2), flush=True)
    elif parsed.html != "-":
        from shutil import get_terminal_size

        from pvh.conformance.text import render

        print(render(report, get_terminal_size((100, 24)).columns), end="", flush=True)


def _write_html(path: str, report: Report, engine: Engine) -> None:
    """Write the page, with the time of one more boot as libxenguest does it."""
    from pvh.conformance.boot import boot
    from pvh.conformance.html import render_html
    from pvh.timeline.record import Timeline

    timeline, task = None, report.task
    if task:
        timeline = Timeline()
        boot(task.kernel, task.options, engine, task.way, task.limits, timeline)
        timeline.flush()
    write_file(path, render_html(report, timeline).encode())


def _settled(kernel: Kernel, options: BootOptions, parsed: Any) -> tuple[BootOptions, tuple[Milestone, ...]]:
    """Return the options, and what to wait for; a Linux that nobody told otherwise is heard early."""
    from pvh.conformance.milestone import parse as milestone

    way = tuple(milestone(text) for text in parsed.until)
    if way or not kernel.is_linux or options.platform != "xen":
        return options, way
    words = options.cmdline.split()
    if not any(word.startswith(("console=", "earlyprintk")) for word in words):
        _say("a Linux that says nothing early: earlyprintk=xen is added to its command line")
        options = replace(options, cmdline=f"earlyprintk=xen {options.cmdline}".strip())
    return options, (milestone(_LINUX),)


def _known(names: list[str], task: Task) -> None:
    """Raise UsageError for a profile that there is not for this kernel and guest."""
    from pvh.conformance.profiles import profiles

    there = [profile.name for profile in profiles(task.kernel, task.options)]
    for name in names:
        if name not in there:
            raise UsageError("no such profile for this kernel and guest", found=name, wanted=", ".join(there))


def _chosen(names: list[str]) -> Callable[[str], bool]:
    return lambda name: not names or name in names


def _say(text: str) -> None:
    print(f"pvh: {text}", file=sys.stderr, flush=True)
