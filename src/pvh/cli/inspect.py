"""pvh inspect: what is this file, and does it boot by this ABI?"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator

from pvh.abi import elfnote
from pvh.cli.options import kernel_file
from pvh.cli.plain import parse
from pvh.errors import NotAKernel
from pvh.hints import TYPE_CHECKING
from pvh.kernel import container
from pvh.kernel.banner import with_banner
from pvh.kernel.features import names
from pvh.kernel.oddities import draft_c
from pvh.kernel.read import read_source
from pvh.kernel.record import Finding, Kernel, Note, Segment
from pvh.kernel.source import Source, open_source
from pvh.record import replace

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from pvh.cli.plain import Notes

ABOUT = {
    "description": "Say what a file is, and whether it boots by Xen's HVM direct boot ABI (PVH).",
    "epilog": """examples:
  pvh inspect vmlinuz
  pvh inspect --json vmlinuz
  zcat vmlinux.gz | pvh inspect -

exit status: 0 bootable, 20 refused, 2 wrong usage or unreadable file""",
}
_ADDRESSES = {
    elfnote.ENTRY,
    elfnote.HYPERCALL_PAGE,
    elfnote.VIRT_BASE,
    elfnote.PADDR_OFFSET,
    elfnote.HV_START_LOW,
    elfnote.INIT_P2M,
    elfnote.PHYS32_ENTRY,
}


def declare(parser: ArgumentParser | Notes) -> None:
    """Declare the options."""
    parser.add_argument("file", type=kernel_file, metavar="FILE",
                        help="a kernel image; - is standard input, demo comes with pvh")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--picture", action="store_true", help="draw where segments lie, as at a terminal")
    parser.add_argument("--loaders", action="store_true", help="say how other loaders would boot it, and why not")
    parser.add_argument("--abi", choices=("v1", "v0", "draft-c"), default="v1",
                        help="draft-c: warn of notes that Draft C lists and the file lacks")  # fmt: skip


def main(argv: list[str]) -> int:
    """Inspect one file; return 0 when it is bootable, 20 when it is refused."""
    options = parse(declare, argv, prog="pvh inspect", **ABOUT)
    source = open_source(options.file)
    try:
        kernel = with_banner(read_source(source))
    except NotAKernel as error:
        if options.loaders:
            raise
        _print(_refused_json(source, error) if options.json else _refused_text(error))
        return error.status
    if options.abi == "draft-c":
        kernel = replace(kernel, warnings=kernel.warnings + draft_c(kernel))
    if options.loaders:
        return _loaders(kernel, machine_readable=options.json)
    drawn = not options.json and (options.picture or sys.stdout.isatty())
    _print(as_dict(kernel) if options.json else as_text(kernel, _width(), _picture(kernel) if drawn else []))
    return 0 if kernel.bootable else NotAKernel.status


def _loaders(kernel: Kernel, *, machine_readable: bool) -> int:
    """Print what other loaders make of a kernel; 0 when one of them boots it by PVH, 20 when none does."""
    from pvh.cli.inspect_loaders import SCHEMA, as_rows, as_table  # only for --loaders
    from pvh.kernel.loaders import judge_all

    found = judge_all(kernel)
    if machine_readable:
        _print({"schema": SCHEMA, "path": kernel.path, "loaders": as_rows(found)})
    else:
        _print(as_table(printable(kernel.path), found, _width()))
    return 0 if any(verdict.pvh for verdict in found) else NotAKernel.status


def _print(report: dict[str, object] | str) -> None:
    if isinstance(report, str):
        print(report)
        return
    import json  # only for --json

    print(json.dumps(report, indent=2))


def _picture(kernel: Kernel) -> list[str]:
    from pvh.cli.picture import glyphs, picture  # only for people

    return picture(kernel, _width(), glyphs(sys.stdout.encoding))


def _width() -> int:
    """Return the columns to write in: the terminal's, COLUMNS, or 100 where neither is known."""
    if os.environ.get("COLUMNS", "").isdigit():
        return max(40, int(os.environ["COLUMNS"]))
    try:
        return max(40, os.get_terminal_size(1).columns)
    except OSError:
        return 100


def as_dict(kernel: Kernel) -> dict[str, object]:
    """Return the report as --json prints it: addresses and sizes are integers, in bytes."""
    formats = [layer.format for layer in kernel.layers]
    compressions = [name for name in formats if name not in {"bzImage", f"ELF{kernel.bits}"}]
    xen = [note for note in kernel.notes if note.owner == elfnote.OWNER]
    others = [note for note in kernel.notes if note.owner != elfnote.OWNER]
    reloc = kernel.relocation
    return {
        "path": kernel.path,
        "container": {"bzImage": "bzimage", "gzip": "gzip"}.get(formats[0], "elf"),
        "compression": compressions[-1] if compressions else None,
        "layers": [
            {"format": layer.format, "offset": layer.offset, "size": layer.size, "detail": layer.detail}
            for layer in kernel.layers
        ],
        "elf_class": kernel.bits,
        "machine": kernel.machine,
        "e_entry": kernel.e_entry,
        "entry": kernel.entry,
        "image": {"start": kernel.start, "end": kernel.end},
        "min_memory": kernel.min_memory,
        "relocation": {"align": reloc.align, "min": reloc.min, "last": reloc.last} if reloc else None,
        "linux_version": kernel.linux_version or None,
        "build_id": kernel.build_id or None,
        "notes": [_note_dict(note) for note in xen],
        "other_notes": [{"owner": note.owner, **_note_dict(note)} for note in others],
        "features": {"supported": names(kernel.features.supported), "required": names(kernel.features.required)},
        "segments": [_segment_dict(segment) for segment in kernel.loads],
        "verdict": "bootable" if kernel.bootable else "refused",
        "reasons": [_finding_dict(finding) for finding in kernel.problems],
        "warnings": [_finding_dict(finding) for finding in kernel.warnings],
    }


def _note_dict(note: Note) -> dict[str, object]:
    value = list(note.value) if isinstance(note.value, tuple) else note.value
    return {"type": note.type, "name": note.name, "value": value, "source": note.where, "offset": note.offset}


def _segment_dict(segment: Segment) -> dict[str, object]:
    fields = ("index", "flags", "offset", "vaddr", "paddr", "filesz", "memsz", "align")
    return {name: getattr(segment, name) for name in fields}


def _finding_dict(finding: Finding) -> dict[str, object]:
    return {
        "code": finding.code,
        "message": finding.cause,
        "hint": finding.hint,
        "field": finding.field or None,
        "offset": finding.offset,
        "found": finding.found or None,
        "wanted": finding.wanted or None,
    }


def _refused_json(source: Source, error: NotAKernel) -> dict[str, object]:
    """Return the report of a file that holds no kernel: the same keys, as far as they have a meaning."""
    reason = _finding_dict(_as_finding(error))
    nothing = dict.fromkeys(("compression", "elf_class", "machine", "e_entry", "entry", "image", "min_memory"))
    return {
        "path": source.path,
        "container": container.guess(source),
        **nothing,
        "notes": [],
        "features": {"supported": [], "required": []},
        "segments": [],
        "verdict": "refused",
        "reasons": [reason],
        "warnings": [],
    }


def _refused_text(error: NotAKernel) -> str:
    return "\n".join([f"{printable(error.path or '')}: refused", "", *_findings((_as_finding(error),), _width())])


def _as_finding(error: NotAKernel) -> Finding:
    found, wanted, hint = (text or "" for text in (error.found, error.wanted, error.hint))
    return Finding(error.code, error.cause, "", error.offset, found, wanted, hint)


def as_text(kernel: Kernel, width: int, picture: list[str]) -> str:
    """Return the report for people, in lines of width columns at most where its words allow; picture goes into it."""
    sections = [
        [f"{printable(kernel.path)}: {'bootable' if kernel.bootable else 'refused'}"],
        list(_findings(kernel.problems, width)),
        list(_facts(kernel, width)),
        list(_segments(kernel, width)),
        picture,
        list(_notes(kernel, width)),
        ["warnings:", *_findings(kernel.warnings, width)] if kernel.warnings else [],
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _facts(kernel: Kernel, width: int) -> Iterator[str]:
    for index, layer in enumerate(kernel.layers):
        detail = f" ({layer.detail})" if layer.detail else ""
        inside = f"in it at {layer.offset:#x}: " if index and layer.offset else "in it: " if index else ""
        yield from _row("" if index else "format", f"{inside}{layer.format}, {size(layer.size)}{detail}", width)
    if kernel.linux_version:
        yield from _row("Linux", kernel.linux_version, width)
    if kernel.build_id:
        yield from _row("build id", kernel.build_id, width)
    yield from _row("entry", "none" if kernel.entry is None else f"{kernel.entry:#x} (PHYS32_ENTRY)", width)
    span = f"{kernel.start:#x} to {kernel.end:#x}, {size(kernel.end - kernel.start)}"
    yield from _row("image", span, width)
    yield from _row("memory", f"{size(kernel.min_memory)} of RAM at least; modules and tables come on top", width)
    if kernel.relocation:
        reloc = kernel.relocation
        allowed = f"to multiples of {reloc.align:#x} from {reloc.min:#x} up to {reloc.last:#x} (Xen does for dom0 only)"
        yield from _row("movable", allowed, width)
    yield from _row("supports", ", ".join(names(kernel.features.supported)) or "no feature by name", width)
    yield from _row("requires", ", ".join(names(kernel.features.required)) or "no feature", width)


def _row(label: str, text: str, width: int) -> list[str]:
    return _wrap(f"  {label:9} ", printable(text), width)


def _wrap(first: str, text: str, width: int) -> list[str]:
    indent = " " * len(first)
    return textwrap.wrap(text, max(width, 20), initial_indent=first, subsequent_indent=indent) or [first.rstrip()]


def _segments(kernel: Kernel, width: int) -> Iterator[str]:
    if not kernel.loads:
        return
    wide = width >= 80
    yield "segments that load:" if wide else "segments that load (physical addresses):"
    if wide:
        yield f"  {'#':>2}  {'':3}  {'physical':25}  {'in file':>10}  {'in memory':>10}  virtual"
    for segment in kernel.loads:
        flags = "".join(c if segment.flags & bit else "-" for c, bit in (("R", 4), ("W", 2), ("X", 1)))
        place = f"{segment.paddr:#x}-{segment.end:#x}"
        more = f"  {size(segment.filesz):>10}  {size(segment.memsz):>10}  {segment.vaddr:#x}" if wide else ""
        yield f"  {segment.index:>2}  {flags}  {place:25}{more}".rstrip()


def _notes(kernel: Kernel, width: int) -> Iterator[str]:
    if not kernel.notes:
        return
    yield "notes:"
    for note in kernel.notes:
        owner = "" if note.owner == elfnote.OWNER else f"{printable(note.owner) or '(no owner)'} "
        number = str(note.type) if note.type < 100 else f"{note.type:#x}"
        yield from _wrap(f"  {number:>5} {owner + note.name:18} ", f"{shown(note)}  [{note.where}]", width)


def shown(note: Note) -> str:
    """Return a note's value as people read it: addresses in hexadecimal, strings as they are."""
    value = note.value
    if value is None:
        return f"{len(note.desc)} bytes"
    if isinstance(value, str):
        return printable(value) or '""'
    if isinstance(value, tuple):
        return " ".join(f"{word:#x}" for word in value) or "nothing"
    if note.owner == elfnote.OWNER and note.type in _ADDRESSES:
        return f"{value:#x}"
    return str(value)


def _findings(findings: tuple[Finding, ...], width: int) -> Iterator[str]:
    for finding in findings:
        at = f" at {finding.offset:#x}" if finding.offset is not None else ""
        field = f" ({finding.field}{at})" if finding.field else f" ({at.strip()})" if at else ""
        yield from _wrap("  - ", printable(finding.cause + field), width)
        for label, text in (("found", finding.found), ("wanted", finding.wanted)):
            if text:
                yield from _wrap(f"    {label:6} ", printable(text), width)
        first, *lines = finding.hint.split("\n")
        if first:
            yield from _wrap("    hint   ", printable(first), width)
        # Lines to copy are not wrapped.
        yield from (f"       {line}" for line in lines)


def size(count: int) -> str:
    """Return bytes in a unit that leaves three digits or so."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << shift:
            return f"{count / (1 << shift):.1f} {unit}".replace(".0 ", " ")
    return f"{count} bytes"


def printable(text: str) -> str:
    """Return text from a file with what could steer a terminal written out."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
