"""`pvh export`: the configuration or command line that boots the same thing in another VMM."""

from __future__ import annotations

import sys

from pvh.cli.options import add_boot_options, boot_options
from pvh.cli.output import write_file
from pvh.cli.plain import parse
from pvh.export import TARGETS, export
from pvh.hints import TYPE_CHECKING
from pvh.kernel.read import read_kernel

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from pvh.cli.plain import Notes

ABOUT = {
    "description": "Write what boots the same kernel in another VMM.",
    "epilog": """examples:
  pvh export xl vmlinuz --initrd initrd.img -m 1G >guest.cfg
  pvh export qemu vmlinuz --vmlinux vmlinux -c console=ttyS0 --platform bare
  pvh export firecracker vmlinux --json

What cannot be said there is named on standard error.""",
}


def declare(parser: ArgumentParser | Notes) -> None:
    """Declare the options."""
    parser.add_argument("target", metavar="VMM", choices=tuple(TARGETS), help=", ".join(TARGETS))
    add_boot_options(parser)
    parser.add_argument("--vmlinux", metavar="FILE", help="write the ELF inside a bzImage or archive, and name that")
    parser.add_argument("--json", action="store_true", help="print the text and what is missing as JSON")


def main(argv: list[str]) -> int:
    """Print the text, and on standard error what it cannot say. Returns the exit status."""
    arguments = parse(declare, argv, prog="pvh export", **ABOUT)
    kernel = read_kernel(arguments.kernel)
    if arguments.vmlinux:
        write_file(arguments.vmlinux, kernel.source.read(0, kernel.source.size))
    made = export(arguments.target, kernel, boot_options(arguments), arguments.vmlinux)
    if arguments.json:
        import json

        print(json.dumps({"vmm": arguments.target, "text": made.text, "missing": made.missing}, indent=2))
        return 0
    print(made.text, end="")
    for what in made.missing:
        print(f"pvh: {arguments.target} cannot have {what}", file=sys.stderr)
    return 0
