"""`pvh check`: does a kernel rely on anything that this ABI does not promise?"""

from __future__ import annotations

import os
import sys

from pvh.cli import ctrl_c
from pvh.cli.options import add_boot_options, boot_options, some_seconds
from pvh.cli.plain import parse
from pvh.errors import UsageError
from pvh.hints import TYPE_CHECKING, Any
from pvh.record import replace

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable

    from pvh.cli.plain import Notes
    from pvh.conformance.checker import Attempt, Task
    from pvh.conformance.milestone import Milestone
    from pvh.conformance.report import Report
    from pvh.engines.engine import Engine
    from pvh.kernel.record import Kernel
    from pvh.plan.options import BootOptions

_LINUX = "console:Booting .*kernel on Xen PVH"
_BAR = 24
_CLEAR = "\r\033[K"

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
The exit status is 15 when a clause is violated, or the kernel does not boot with libxenguest's values either.""",
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
    check.add_argument("--seed", type=int, default=1, metavar="N", help="what chance starts from (default 1)")
    check.add_argument("--jobs", type=int, default=0, metavar="N", help="processes (default one a processor)")
    check.add_argument("--timeout", type=some_seconds, default=60.0, metavar="S",
                       help="give the first boot up after S seconds (default 60)")  # fmt: skip
    check.add_argument("--differential", action="store_true",
                       help="no profiles: emulator and KVM side by side, exit by exit, until they differ")  # fmt: skip
    check.add_argument("--html", metavar="FILE", help="write the report as one HTML file, too")
    check.add_argument("--json", action="store_true", help="print the report as JSON (docs/check.schema.json)")


def _differential(kernel: Kernel, options: BootOptions, parsed: Any) -> int:
    """Compare the engines and say where the guest first does something else. Returns the exit status."""
    from dataclasses import asdict

    from pvh.conformance.differential import compare
    from pvh.conformance.report import VIOLATED
    from pvh.engines.select import choose

    engines = choose("emulator", _say), choose("kvm", _say)
    found = compare(kernel, options, engines, parsed.timeout)
    if parsed.json:
        import json

        print(json.dumps({"schema": 1, "kernel": kernel.path, **asdict(found)}, indent=2))
    else:
        print(f"{kernel.path}: {found.agreed} exits the same on {' and '.join(found.engines)}")
        if found.difference:
            print(f"exit {found.difference.index} differs:")
            for name, step in zip(found.engines, (found.difference.first, found.difference.second), strict=True):
                print(f"  {name:<9} {step or 'nothing: the guest had ended'}")
    return VIOLATED if found.difference else 0


def _write_html(path: str, report: Report, engine: Engine) -> None:
    """Write the page, with the time of one more boot as libxenguest does it."""
    from pvh.cli.output import write_file
    from pvh.conformance.boot import boot
    from pvh.conformance.html import render_html
    from pvh.timeline.record import Timeline

    timeline, task = None, report.task
    if task:
        timeline = Timeline()
        boot(task.kernel, task.options, engine, task.way, task.limits, timeline)
        timeline.flush()
    write_file(path, render_html(report, timeline).encode())


def main(argv: list[str]) -> int:
    """Check a kernel and print what came of it. Returns the exit status."""
    parsed = parse(declare, argv, prog="pvh check", **ABOUT)
    ctrl_c.end_at_once(_CLEAR if sys.stderr.isatty() else "")
    from pvh.conformance.checker import Task
    from pvh.conformance.report import as_dict, check
    from pvh.engines.select import choose
    from pvh.kernel.read import read_kernel

    options = replace(boot_options(parsed), timeout=None)
    kernel = read_kernel(parsed.kernel)
    if parsed.differential:
        return _differential(kernel, options, parsed)
    options, way = _settled(kernel, options, parsed)
    engine = choose("emulator" if options.engine == "auto" else options.engine, _say)
    late = next((milestone for milestone in way if milestone.needs_emulator), None)
    if late and engine.name == "kvm":
        raise UsageError(
            "--until: only the emulator tells when that is", found=str(late), hint="leave --engine kvm out"
        )
    progress = _Progress(quiet=parsed.json)
    task = Task(kernel, options, way, _limits(parsed))
    _known(parsed.profile, task)
    jobs = parsed.jobs or os.cpu_count() or 1
    report = check(task, engine, parsed.seed, jobs, only=_chosen(parsed.profile), tell=progress.tell)
    progress.end()
    if parsed.html:
        _write_html(parsed.html, report, engine)
    if parsed.json:
        import json

        print(json.dumps(as_dict(report), indent=2))
    else:
        from shutil import get_terminal_size

        from pvh.conformance.text import render

        print(render(report, get_terminal_size((100, 24)).columns), end="")
    return report.status


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


def _limits(parsed: Any) -> Any:
    from pvh.conformance.boot import Limits

    return Limits(seconds=parsed.timeout)


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


class _Progress:
    """A bar at a terminal, which each profile's line pushes down; elsewhere the lines alone; nothing for --json."""

    def __init__(self, *, quiet: bool) -> None:
        self._bar = sys.stderr.isatty()
        self._quiet = quiet
        self._done = 0

    def tell(self, what: Task | Attempt, count: int) -> None:
        """Say what is tried, and what came of each try."""
        from pvh.conformance.checker import Task
        from pvh.conformance.text import attempt_line, printable

        if isinstance(what, Task):
            if not self._quiet:
                where = (
                    ", then ".join(str(milestone) for milestone in what.way)
                    or "... it says and does nothing (see --until)"
                )
                print(f"{what.kernel.path}: {count} profiles; booted when {printable(where)}", flush=True)
            return
        self._done += 1
        self._clear()
        if not self._quiet:
            print(attempt_line(what), flush=True)
        if self._bar and self._done < count:
            filled = _BAR * self._done // count
            print(
                f"[{'#' * filled}{'.' * (_BAR - filled)}] {self._done} of {count}", end="", file=sys.stderr, flush=True
            )

    def end(self) -> None:
        """Leave no bar behind."""
        self._clear()

    def _clear(self) -> None:
        if self._bar:
            print(_CLEAR, end="", file=sys.stderr, flush=True)
