"""`pvh probe`: what does another VMM really hand to a PVH kernel?"""

from __future__ import annotations

import sys
import textwrap
from shutil import get_terminal_size

from pvh.cli.options import kernel_file, some_seconds
from pvh.cli.output import write_file
from pvh.cli.plain import parse
from pvh.conformance.probe.capture import read_capture
from pvh.conformance.probe.compare import differences, only, shown
from pvh.conformance.probe.facts import Observation, observe
from pvh.conformance.probe.kernel import FORMS, probe_file, probe_path
from pvh.conformance.probe.own import OWN, run_own
from pvh.conformance.probe.verdicts import Verdict, judge
from pvh.conformance.probe.vmm import VMMS, Probe, run_vmm
from pvh.errors import UsageError
from pvh.hints import TYPE_CHECKING, Any
from pvh.kernel.read import read_kernel
from pvh.kernel.source import open_source

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterator

    from pvh.cli.plain import Notes

SCHEMA = "pvh.probe/1"
VIOLATED = 15  # as pvh check has it

ABOUT = {
    "description": "Ask a VMM what it hands to a PVH kernel, and judge that by the ABI, clause by clause.",
    "epilog": """examples:
  pvh probe qemu-microvm
  pvh probe qemu-q35 --accel kvm --against qemu-pc
  pvh probe --write probe.elf  # boot it anywhere, keep what its console says,
  pvh probe --dump console.log # and read that
  pvh probe --gdb localhost:1234 --kernel vmlinux

exit status: 0 every promise seen is kept, 15 one is not, 2 wrong usage, 14 the VMM failed""",
}


def declare(parser: ArgumentParser | Notes) -> None:
    """Declare the options."""
    parser.add_argument("vmm", metavar="VMM", nargs="?", help=", ".join((*VMMS, *OWN)))
    parser.add_argument("--accel", choices=("tcg", "kvm"), default="tcg", help="QEMU's accelerator (default tcg)")
    parser.add_argument("--dump", metavar="FILE", help="read a console's log; - is standard input")
    parser.add_argument("--gdb", metavar="ADDRESS",
                        help="ask a stopped machine's GDB stub at HOST:PORT or unix:PATH")  # fmt: skip
    parser.add_argument("--kernel", type=kernel_file, metavar="FILE",
                        help="the kernel booted there (default: the probe kernel)")  # fmt: skip
    parser.add_argument("--against", metavar="OTHER", default="pvh-emulator",
                        help="what to compare with: a VMM, a log's path, or none (default pvh-emulator)")  # fmt: skip
    parser.add_argument("--form", choices=FORMS,
                        help="which build of the probe (default elf32, or what the VMM boots by PVH)")  # fmt: skip
    parser.add_argument("--write", metavar="FILE", help="write the probe kernel, to boot it elsewhere; - prints it")
    parser.add_argument("--timeout", metavar="S", type=some_seconds, default=60.0, help="seconds to wait (default 60)")
    parser.add_argument("--json", action="store_true", help="print JSON (docs/json.md)")


def main(argv: list[str]) -> int:
    """Probe, and print verdicts and differences. Returns the exit status."""
    asked = parse(declare, argv, prog="pvh probe", **ABOUT)
    if asked.write:
        write_file(asked.write, probe_file(asked.form or FORMS[0]))
        return 0
    seen = _seen(asked)
    verdicts = judge(seen)
    other = None if asked.against in ("none", seen.name) else _other(asked)
    if asked.json:
        import json

        print(json.dumps(as_dict(seen, verdicts, other), indent=2))
    else:
        for line in as_text(seen, verdicts, other, max(40, get_terminal_size((100, 24)).columns)):
            print(line)
    return VIOLATED if any(verdict.answer == "violated" for verdict in verdicts) else 0


def _seen(asked: Any) -> Observation:
    """Ask what the line says to ask."""
    ways = [bool(asked.vmm), bool(asked.dump), bool(asked.gdb)]
    if sum(ways) != 1:
        cause = "nothing to probe" if not any(ways) else "more than one thing to probe"
        raise UsageError(cause, wanted="a VMM's name, --dump FILE or --gdb ADDRESS", hint=_NAMES)
    if asked.kernel and not asked.gdb:
        raise UsageError("--kernel goes with --gdb: elsewhere the probe kernel is booted")
    if asked.gdb:
        from pvh.conformance.probe.gdb import probe_by_gdb  # only for --gdb

        _say(f"waiting for the machine at {asked.gdb} to come to the entry point")
        return probe_by_gdb(asked.gdb, read_kernel(asked.kernel or probe_path(asked.form or FORMS[0])), asked.timeout)
    return _log(asked.dump) if asked.dump else _boot(asked.vmm, asked)


_NAMES = f"there are {', '.join((*VMMS, *OWN))}"


def _boot(name: str, asked: Any) -> Observation:
    probe = Probe(asked.form, asked.accel, asked.timeout)
    if name in OWN:
        return run_own(name, probe)
    if name not in VMMS:
        raise UsageError(f"no VMM of the name {name!r}", hint=_NAMES)
    _say(f"booting the probe kernel in {name}")
    return run_vmm(VMMS[name], probe)


def _say(what: str) -> None:
    """Say at a terminal what takes a while."""
    if sys.stderr.isatty():
        print(f"pvh: {what}", file=sys.stderr, flush=True)


def _log(path: str) -> Observation:
    source = open_source(path)
    return observe(read_capture(source.read(0, source.size), path), path, "a log")


def _other(asked: Any) -> Observation:
    """Return what to compare with."""
    known = asked.against in OWN or asked.against in VMMS
    return _boot(asked.against, asked) if known else _log(asked.against)


def as_dict(seen: Observation, verdicts: tuple[Verdict, ...], other: Observation | None) -> dict[str, object]:
    """Return the report as --json prints it (schema pvh.probe/1)."""
    report: dict[str, object] = {
        "schema": SCHEMA,
        "vmm": seen.name,
        "how": seen.how,
        "remarks": list(seen.remarks),
        "verdicts": [
            {"clause": verdict.clause, "answer": verdict.answer, "evidence": verdict.evidence,
             "tempting": verdict.tempting}
            for verdict in verdicts
        ],
        "facts": seen.facts,
        "memmap": [{"address": entry.address, "size": entry.size, "type": entry.type} for entry in seen.memmap],
        "against": None,
    }  # fmt: skip
    if other is not None:
        report["against"] = {
            "vmm": other.name,
            "differences": [
                {"fact": difference.name, "here": difference.here, "there": difference.there}
                for difference in differences(seen, other)
            ],
            "only_here": list(only(seen, other)),
            "only_there": list(only(other, seen)),
        }
    return report


def as_text(seen: Observation, verdicts: tuple[Verdict, ...], other: Observation | None, width: int) -> Iterator[str]:
    """Give the report for people, in lines of width columns at most where words allow."""
    counts = {answer: sum(verdict.answer == answer for verdict in verdicts) for answer in ("violated", "upheld")}
    yield f"{seen.name} ({seen.how}): {counts['violated']} violated, {counts['upheld']} upheld"
    for remark in seen.remarks:
        yield from _wrapped("  ! ", remark, width)
    titles = {"violated": "violated", "upheld": "upheld", "open": "open: the ABI promises nothing, and there is"}
    for answer, title in titles.items():
        rows = [verdict for verdict in verdicts if verdict.answer == answer]
        if rows:
            yield f"\n{title}"
        for verdict in sorted(rows, key=lambda verdict: not verdict.tempting):
            yield from _wrapped(f"  {'*' if verdict.tempting else ' '} {verdict.clause:23} ", verdict.evidence, width)
    unseen = [verdict.clause for verdict in verdicts if verdict.answer == "not seen"]
    if unseen:
        yield "\nnot seen"
        yield from _wrapped("    ", ", ".join(unseen), width)
    if other is not None:
        yield from _against(seen, other, width)


def _against(seen: Observation, other: Observation, width: int) -> Iterator[str]:
    found = differences(seen, other)
    yield f"\n{len(found)} differences from {other.name}"
    for one in found:
        here, there = shown(one.name, one.here), shown(one.name, one.there)
        line = f"    {one.name:23} {here}  (there {there})"
        if len(line) <= width:
            yield line
            continue
        yield from _wrapped(f"    {one.name:23} ", here, width)
        yield from _wrapped(f"    {'there':>23} ", there, width)


def _wrapped(first: str, text: str, width: int) -> list[str]:
    printable = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return textwrap.wrap(printable, width, initial_indent=first, subsequent_indent=" " * len(first)) or [first.rstrip()]
