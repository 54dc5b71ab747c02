"""Our docstrings as Markdown, for mkdocstrings: a griffe extension (mkdocs.yml names it).

A docstring is plain text: paragraphs, lists of `name  meaning` in two columns, and examples of the interpreter's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

_FIRST = re.compile(r"[a-z_]\w*(?:, ?\w+)*(?: \w+)? {2,}(?=\S)")
_NAMES = re.compile(r"\w+(?:, ?\w+)*(?: of)?")


def markdown(text: str) -> str:
    """Return a docstring as Markdown."""
    blocks = re.split(r"\n{2,}", text.strip("\n"))
    return "\n\n".join(piece for block in blocks for piece in _pieces(block.splitlines()))


def _pieces(lines: list[str]) -> Iterator[str]:
    """Yield what the lines of one block are: a list, an example, paragraphs."""
    while lines:
        if lines[0].startswith(">>> "):
            yield "\n".join(["```pycon", *lines, "```"])
            return
        found = _FIRST.match(lines[0])
        column = found.end() if found else 0
        count = next((at for at, line in enumerate(lines) if not _in_list(line, column)), len(lines)) if found else 0
        if count:
            yield "\n".join(_item(line, column) for line in lines[:count])
            lines = lines[count:]
            continue
        end = next((at for at, line in enumerate(lines) if at and _FIRST.match(line)), len(lines))
        yield "\n".join(lines[:end])
        lines = lines[end:]


def _in_list(line: str, column: int) -> bool:
    """Tell whether a line has its text in the second column."""
    name, text = line[:column], line[column:]
    fits = name.endswith(" ") and text != "" and not text.startswith(" ")
    return fits and (not name.strip() or bool(_NAMES.fullmatch(name.strip())))


def _item(line: str, column: int) -> str:
    name, text = line[:column].strip(), line[column:]
    return f"- `{name}`: {text}" if name else f"  {text}"


def _rewrite(thing: Any) -> None:
    """Rewrite the docstrings of an object and of what it has; our records are to be dataclasses to griffe."""
    if thing.docstring:
        thing.docstring.value = markdown(thing.docstring.value)
    for member in thing.members.values():
        if not member.is_alias:
            _rewrite(member)
        elif member.target_path in ("pvh.record.dataclass", "pvh.record.field"):
            member.target_path = f"dataclasses.{member.name}"


def _on_package(_: object, *, pkg: Any, **_more: Any) -> None:
    """Rewrite a package that griffe has loaded."""
    _rewrite(pkg)


if find_spec("griffe"):  # only the documentation's dependencies bring it
    Docstrings = type("Docstrings", (import_module("griffe").Extension,), {"on_package": _on_package})
