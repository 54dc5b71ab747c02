"""`pvh doctor`: which engines are usable here, which are not, why, and what to do about it."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from importlib.util import find_spec
from shutil import get_terminal_size
from textwrap import wrap

from pvh.cli.plain import parse
from pvh.cli.project import chosen
from pvh.engines.select import choose, need_linux
from pvh.errors import EngineError, NoEngine, PvhError
from pvh.hints import TYPE_CHECKING
from pvh.record import dataclass

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from pvh.cli.plain import Notes
    from pvh.engines.kvm.probe import Check

# What a codec is imported from, and how to get that.
_CODECS = (
    ("gzip", "zlib", "a Python built with zlib"),
    ("bzip2", "bz2", "a Python built with libbz2"),
    ("xz, lzma", "lzma", "a Python built with liblzma"),
    ("lz4", "lz4", "pip install lz4"),
    ("zstd", "zstandard", "pip install zstandard"),
    ("lzo", "lzo", "pip install python-lzo"),
)
_COLUMN = 21  # where the text of a table's row begins
_TOOLS = (("disassembly", "capstone", "pip install capstone"),)


@dataclass(frozen=True, slots=True)
class EngineReport:
    """One engine on this host.

    usable  it can be asked for; trusted  `--engine auto` takes it when it gets that far
    reason  why it is not usable, or not trusted; hint: what to do
    facts   what else is worth knowing, as sentences
    """

    name: str
    usable: bool
    trusted: bool
    reason: str = ""
    hint: str = ""
    facts: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """Something optional: what for, the module it needs, whether that is there, how to get it."""

    purpose: str
    module: str
    available: bool
    hint: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything doctor knows.

    auto      the engine `--engine auto` takes, None when there is none
    project   the file that sets defaults here, and what it sets
    """

    python: str
    system: str
    machine: str
    cpus: int
    auto: str | None
    engines: tuple[EngineReport, ...]
    codecs: tuple[Part, ...]
    tools: tuple[Part, ...]
    project: str | None
    defaults: dict[str, object]


def examine(device: str = "/dev/kvm") -> Report:
    """Look at this host."""
    engines = (_kvm(device), _emulator())
    project, defaults = chosen()
    return Report(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()}",
        machine=platform.machine(),
        cpus=os.cpu_count() or 1,
        auto=next((engine.name for engine in engines if engine.trusted), None),
        engines=engines,
        codecs=tuple(_part(*row) for row in _CODECS),
        tools=tuple(_part(*row) for row in _TOOLS),
        project=project,
        defaults=defaults,
    )


def _part(purpose: str, module: str, hint: str) -> Part:
    available = find_spec(module) is not None
    return Part(purpose, module, available, "" if available else hint)


def _kvm(device: str) -> EngineReport:
    try:
        need_linux()
        from pvh.engines.kvm.device import open_device

        dev = open_device(device)
    except NoEngine as error:
        return _unusable("kvm", error)
    from pvh.engines.kvm.hypercall_page import intercepted
    from pvh.engines.kvm.probe import run_probe

    try:
        probe = run_probe(dev)
        passed_on = intercepted(dev)
    except EngineError as error:
        return _unusable("kvm", error)
    finally:
        os.close(dev)
    how = "passed on by KVM" if passed_on else "by replacing VMCALL in the kernel's code (no KVM_CAP_XEN_HVM)"
    facts = (
        f"hypercalls: {how}",
        f"guests' TSC: {probe.tsc_khz / 1e3:.3f} MHz",
        f"probe: {probe.took_ns / 1e6:.1f} ms",
    )
    if not probe.failing:
        return EngineReport("kvm", usable=True, trusted=True, facts=facts, checks=probe.checks)
    return EngineReport(
        "kvm",
        usable=True,
        trusted=False,
        reason="it fails at " + ", ".join(check.name for check in probe.failing),
        hint="use the emulator; small guests that need none of this run with --engine kvm",
        facts=facts,
        checks=probe.checks,
    )


def _emulator() -> EngineReport:
    try:
        engine = choose("emulator", lambda _: None)
    except NoEngine as error:
        return _unusable("emulator", error)
    from pvh.engines.emulator.libunicorn import library_path

    facts = (f"library: {library_path()}", f"guests' TSC: {engine.tsc_khz / 1e3:.3f} MHz")
    return EngineReport("emulator", usable=True, trusted=True, facts=facts)


def _unusable(name: str, error: PvhError) -> EngineReport:
    detail = "; ".join(f"{k} {v}" for k, v in (("found", error.found), ("wanted", error.wanted)) if v)
    reason = error.cause + (f" ({detail})" if detail else "")
    return EngineReport(name, usable=False, trusted=False, reason=reason, hint=error.hint or "")


def render(report: Report) -> str:
    """Return the report for people, in their terminal's width."""
    width = get_terminal_size().columns
    return "\n".join(part for line in _lines(report) for part in _folded(line, width))


def _folded(line: str, width: int) -> list[str]:
    """Fold a line; what follows stands below its text, where it is one of a table."""
    indent = " " * (_COLUMN if line.startswith(("  ok ", "  FAILS ")) else 4)
    return wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [""]


def _lines(report: Report) -> list[str]:
    lines = [f"Python {report.python}, {report.system}, {report.machine}, {report.cpus} processors"]
    for engine in report.engines:
        verdict = "usable" if engine.trusted else "usable with limits" if engine.usable else "not usable"
        lines += ["", f"{engine.name}: {verdict}" + (f": {engine.reason}" if engine.reason else "")]
        lines += [f"  to do: {engine.hint}"] if engine.hint else []
        lines += [f"  {fact}" for fact in engine.facts]
        for check in engine.checks:
            mark = "ok    " if check.passed else "FAILS "
            lines.append(f"  {mark} {check.name:11} {check.meaning}" + (f": {check.detail}" if check.detail else ""))
    lines += ["", f"--engine auto takes: {report.auto or 'none, because none is usable'}", ""]
    for title, parts in (("payload codecs", report.codecs), ("tools", report.tools)):
        lines.append(f"{title}:")
        for part in parts:
            lines.append(f"  {'ok    ' if part.available else 'absent'}  {part.purpose:11} {part.hint}".rstrip())
    if report.project:
        lines.append(f"defaults of {report.project}:")
        lines += [f"  {name} = {value!r}" for name, value in report.defaults.items()]
    return lines


ABOUT = {
    "description": "Say which engines are usable, and why not.",
    "epilog": "examples:\n  pvh doctor\n  pvh doctor --json",
}


def declare(parser: ArgumentParser | Notes) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="for scripts")


def main(argv: list[str]) -> int:
    """Run the command: 0 when an engine is usable, 21 when none is."""
    asked = parse(declare, argv, prog="pvh doctor", **ABOUT)
    report = examine()
    if asked.json:
        import json  # only for --json

        print(json.dumps(asdict(report), indent=2))
    else:
        print(render(report))
    return 0 if report.auto else NoEngine.status
