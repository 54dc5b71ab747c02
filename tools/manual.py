"""The manual page, out of what the commands say of themselves.

python -m tools.manual        writes docs/pvh.1, which the wheel installs
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from pvh import __version__
from pvh.cli import COMMANDS, STATUS
from pvh.cli.plain import Notes
from pvh.cli.project import KEYS

PAGE = Path(__file__).parents[1] / "docs" / "pvh.1"


def page() -> str:
    """Return the page in man(7)'s words."""
    parts = [
        f'.TH PVH 1 "" "pvh {__version__}" "User Commands"',
        ".SH NAME\npvh \\- build, boot, explain and check kernels that use Xen's HVM direct boot ABI (PVH)",
        ".SH SYNOPSIS\n.B pvh\n.I COMMAND\n[...]",
        ".SH COMMANDS",
        *(_command(name) for name in COMMANDS),
        f".SH EXIT STATUS\n.nf\n{_text(STATUS.partition(chr(10))[2])}\n.fi",
        (
            ".SH FILES\n.TP\n.I pvh.toml\nDefaults of a project, here or in a folder above; also\n.B [tool.pvh]\nof\n"
            f".IR pyproject.toml .\nKeys: {_text(', '.join(KEYS))}."
        ),
        ".SH ENVIRONMENT\n.TP\n.B PVH_CONFIG\nAnother file of defaults; empty: none.",
    ]
    return "\n".join(parts) + "\n"


def _command(name: str) -> str:
    module = import_module(f"pvh.cli.{name}")
    notes = Notes()
    module.declare(notes)
    places = " ".join(str(said.get("metavar", place.upper())) for place, said in notes.places)
    lines = [f".SS pvh {name} {_text(places)}".rstrip(), _text(module.ABOUT["description"])]
    shown: set[str] = set()
    for flag, (place, said) in notes.options.items():
        if place in shown:
            continue
        shown.add(place)
        flags = [other for other, (same, _) in notes.options.items() if same == place]
        lines.append(f".TP\n{_flags(flags or [flag], said)}\n{_text(str(said.get('help', '')))}")
    for place, said in notes.places:
        lines.append(f".TP\n.I {_text(str(said.get('metavar', place.upper())))}\n{_text(str(said.get('help', '')))}")
    epilog = module.ABOUT.get("epilog")
    return "\n".join([*lines, *([f".PP\n.nf\n{_text(epilog)}\n.fi"] if epilog else [])])


def _flags(flags: list[str], said: dict[str, object]) -> str:
    named = said.get("choices")
    what = "{" + ",".join(map(str, named)) + "}" if isinstance(named, tuple) else str(said.get("metavar", ""))
    takes = said.get("action") not in ("store_true", "store_false")
    return rf"\fB{_text(', '.join(flags))}\fR" + (rf" \fI{_text(what)}\fR" if takes else "")


def _text(text: str) -> str:
    """Return text as it is: dashes that are typed, and no line that begins as a request does."""
    safe = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line.startswith((".", "'")) else line for line in safe.splitlines())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
