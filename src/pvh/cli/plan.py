"""`pvh plan`: where every byte of guest-physical memory will go, and why."""

from __future__ import annotations

import argparse
import sys

from pvh.cli.options import add_boot_options, boot_options
from pvh.cli.output import write_file
from pvh.kernel.read import read_kernel
from pvh.plan.planner import plan
from pvh.plan.record import Plan


def main(argv: list[str]) -> int:
    """Plan a boot and print the plan; nothing is booted and no guest memory is made. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="pvh plan", description="Show where every byte of guest memory will go.")
    add_boot_options(parser)
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print the plan as JSON")
    output.add_argument("--svg", metavar="FILE", help="write a picture of guest memory; - prints it")
    arguments = parser.parse_args(argv)
    made = plan(read_kernel(arguments.kernel), boot_options(arguments))
    if arguments.json:
        _print_json(made)
    elif arguments.svg is not None:
        _write_svg(made, arguments.svg)
    else:
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
