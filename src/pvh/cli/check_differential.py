"""`pvh check --differential`: the emulator and KVM side by side."""

from __future__ import annotations

from pvh.errors import UsageError
from pvh.hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvh.conformance.differential import Comparison
    from pvh.kernel.record import Kernel
    from pvh.plan.options import BootOptions

SCHEMA = "pvh.check.differential/1"


def refuse_others(parsed: Any, argv: list[str]) -> None:
    """Raise UsageError for options of profiles, and for an engine: there are none, and both."""
    named = {word.partition("=")[0] for word in argv}
    given = {
        "--html": parsed.html is not None, "--profile": bool(parsed.profile), "--jobs": parsed.jobs is not None,
        "--seed": parsed.seed is not None, "--engine": "--engine" in named,  # a project may have one for other commands
    }  # fmt: skip
    for option, is_there in given.items():
        if is_there:
            why = "runs the emulator and KVM" if option == "--engine" else "tries no profiles"
            raise UsageError(f"{option} does not go with --differential, which {why}", hint=f"leave {option} out")


def run(kernel: Kernel, options: BootOptions, parsed: Any, say: Callable[[str], None]) -> int:
    """Compare the engines and say where the guest first does something else. Returns the exit status."""
    from pvh.conformance.differential import compare
    from pvh.conformance.milestone import parse
    from pvh.conformance.report import VIOLATED
    from pvh.engines.select import choose

    way = tuple(parse(text) for text in parsed.until)
    for milestone in way:
        if milestone.kind not in ("console", "hypercall"):
            raise UsageError("--until: not with --differential: both engines have to tell when that is",
                             found=str(milestone), wanted="console:REGEX or hypercall:NAME")  # fmt: skip
    engines = choose("emulator", say), choose("kvm", say)
    found = compare(kernel, options, engines, parsed.timeout, way)
    if parsed.json:
        import json

        print(json.dumps(as_dict(kernel, found), indent=2))
    else:
        print("\n".join(_lines(kernel, found)))
    return VIOLATED if found.difference else 0


def as_dict(kernel: Kernel, found: Comparison) -> dict[str, Any]:
    """Return the comparison for --json; docs/differential.schema.json says what stands in it."""
    from dataclasses import asdict

    return {"schema": SCHEMA, "kernel": kernel.path, **asdict(found)}


def _lines(kernel: Kernel, found: Comparison) -> list[str]:
    lines = [f"{kernel.path}: {found.agreed} exits the same on {' and '.join(found.engines)}"]
    if found.difference:
        lines.append(f"exit {found.difference.index} differs:")
        for name, step in zip(found.engines, (found.difference.first, found.difference.second), strict=True):
            lines.append(f"  {name:<9} {step or 'nothing: the guest had ended'}")
    for name, missing in zip(found.engines, found.missing, strict=True):
        if missing:
            lines.append(f"not seen on {name}: {missing}")
    return lines
