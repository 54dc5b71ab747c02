"""`pvh plan`: where every byte of guest-physical memory will go, and why."""

from __future__ import annotations

import sys

from pvh.cli.options import add_boot_options, boot_options
from pvh.cli.output import write_file
from pvh.cli.plain import parse
from pvh.errors import UsageError
from pvh.hints import TYPE_CHECKING
from pvh.kernel.read import read_kernel
from pvh.plan.planner import plan
from pvh.plan.record import Plan

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from pvh.cli.plain import Notes


ABOUT = {
    "description": "Show where every byte of guest memory will go.",
    "epilog": """examples:
  pvh plan vmlinuz --initrd initrd.img -m 1G
  pvh plan kernel.elf --svg memory.svg""",
}


def declare(parser: ArgumentParser | Notes) -> None:
    """Declare the options."""
    add_boot_options(parser)
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.add_argument("--svg", metavar="FILE", help="write a picture of guest memory; - prints it")


def main(argv: list[str]) -> int:
    """Plan a boot and print the plan; nothing is booted and no guest memory is made. Returns the exit status."""
    parsed = parse(declare, argv, prog="pvh plan", **ABOUT)
    if parsed.json and parsed.svg == "-":
        raise UsageError("--json and --svg - would both go to standard output", hint="give --svg a file")
    made = plan(read_kernel(parsed.kernel), boot_options(parsed))
    if parsed.svg is not None:
        _write_svg(made, parsed.svg)
    if parsed.json:
        _print_json(made)
    elif parsed.svg is None:
        _print_text(made)
    return 0


def _print_json(made: Plan) -> None:
    import json

    from pvh.plan.dump import as_dict

    print(json.dumps(as_dict(made), indent=2))


def _print_text(made: Plan) -> None:
    from shutil import get_terminal_size

    from pvh.plan.text import render_text

    print(render_text(made, get_terminal_size((100, 24)).columns), end="")


def _write_svg(made: Plan, path: str) -> None:
    from pvh.plan.svg import render_svg

    for warning in made.warnings:
        print(f"pvh: warning: {warning}", file=sys.stderr)
    write_file(path, render_svg(made).encode())
