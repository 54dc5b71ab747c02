"""Boot options as people type them, shared by plan and run."""

from __future__ import annotations

from pvh.amounts import parse_seconds, parse_size
from pvh.errors import UsageError
from pvh.hints import TYPE_CHECKING, Any
from pvh.plan.options import BootOptions, ModuleSpec

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable
    from typing import TypeVar

    from pvh.cli.plain import Notes

    Read = TypeVar("Read")

_DEFAULT = BootOptions()
_MOST_DIGITS = 9


def size(text: str) -> int:
    """Return bytes as typed. Raises argparse's error for what is no size."""
    return _told(parse_size, text)


def seconds(text: str) -> float:
    """Return a span of time as typed, 0 or more. Raises argparse's error for what is none."""
    return _told(parse_seconds, text)


def some_seconds(text: str) -> float:
    """Return a span of time as typed, above 0. Raises argparse's error for what is none."""
    span = seconds(text)
    if not span:
        raise _mistake(f"{text!r}: no time at all")
    return span


def count(text: str) -> int:
    """Return how many of something, at least 1. Raises argparse's error for what is no such number."""
    word = text.strip()
    if not (word.isascii() and word.isdigit() and len(word) <= _MOST_DIGITS and int(word)):
        raise _mistake(f"{text!r} is no number of 1 or more")
    return int(word)


def _told(read: Callable[[str], Read], text: str) -> Read:
    try:
        return read(text)
    except ValueError as error:
        raise _mistake(str(error)) from None


def _mistake(why: str) -> Exception:
    from argparse import ArgumentTypeError  # only a mistake pays for it

    return ArgumentTypeError(why)


def kernel_file(text: str) -> str:
    """Return the path of the kernel that a word names. Raises UsageError where the word may mean two."""
    if text != "demo":
        return text
    from os.path import exists, isdir  # hardly ever needed

    from pvh.demo import demo_path

    if exists(text) and not isdir(text):
        hint = "write ./demo for the file, or go to another folder"
        raise UsageError("is a file here, and the name of the kernel that comes with pvh", path=text, hint=hint)
    return demo_path()


def _module(text: str) -> ModuleSpec:
    path, comma, cmdline = text.partition(",")
    return ModuleSpec(path, cmdline if comma else None)


def add_boot_options(parser: ArgumentParser | Notes) -> None:
    """Add KERNEL and every option that shapes the guest."""
    parser.add_argument("kernel", type=kernel_file, metavar="KERNEL",
                        help="ELF or bzImage, packed or not; - is stdin, demo comes with pvh")  # fmt: skip
    guest = parser.add_argument_group("the guest")
    guest.add_argument("-m", "--memory", type=size, default=_DEFAULT.memory, metavar="SIZE",
                       help="RAM (default 512M)")  # fmt: skip
    guest.add_argument("--vcpus", type=int, default=_DEFAULT.vcpus, metavar="N", help="processors (default 1)")
    guest.add_argument("-c", "--cmdline", default=_DEFAULT.cmdline, metavar="TEXT", help="kernel command line")
    guest.add_argument("--initrd", metavar="FILE", help="the first module")
    guest.add_argument("--module", type=_module, action="append", default=[], metavar="FILE[,CMDLINE]",
                       help="a module and its command line; repeatable")  # fmt: skip
    guest.add_argument("--abi", choices=("v1", "v0", "draft-c"), default=_DEFAULT.abi,
                       help="layout of start_info (default v1)")  # fmt: skip
    guest.add_argument("--platform", choices=("xen", "bare"), default=_DEFAULT.platform,
                       help="Xen's PVH domU (default), or a bare PC board")  # fmt: skip
    guest.add_argument("--privileged", action="store_true", help="set SIF_PRIVILEGED in start_info")
    guest.add_argument("--initdomain", action="store_true", help="set SIF_INITDOMAIN in start_info")
    host = parser.add_argument_group("the host")
    host.add_argument("--engine", choices=("auto", "kvm", "emulator"), default=_DEFAULT.engine,
                      help="what executes the guest (default auto)")  # fmt: skip
    host.add_argument("--copy", action="store_true", help="read files into guest RAM, never map them")


def boot_options(parsed: Any) -> BootOptions:
    """Return the record of what was typed; options a command does not have keep their defaults."""
    given: dict[str, Any] = {name: getattr(parsed, name) for name in BootOptions.__slots__ if hasattr(parsed, name)}
    initrd = (ModuleSpec(parsed.initrd),) if parsed.initrd else ()
    given["modules"] = (*initrd, *parsed.module)
    return BootOptions(**given)
