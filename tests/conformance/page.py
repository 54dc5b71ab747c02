"""Writes docs/clauses.md from the table of clauses, with the tests behind each.

python -m conformance.page        (from tests/, with the repository's root on PYTHONPATH)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from conformance.behind import BEHIND
from pvh.conformance.clauses import CLAUSES, Clause

PAGE = Path(__file__).resolve().parents[2] / "docs" / "clauses.md"

_HEAD = """# The clauses of the ABI

What a loader gives and what a kernel may not rely on, in our words, one clause a line. `pvh check` gives a verdict for
each that binds the kernel, by its id. Sources are paths in the Xen tree; the tests are those that show the clause kept,
and broken, by kernels made for it.

This page is made from `src/pvh/conformance/clauses.py` by `tests/conformance/page.py`.
"""
_PARTS = {
    "processor": "The processor at entry",
    "memory": "Memory",
    "start_info": "start_info and what it points to",
    "platform": "The platform",
    "file": "The file",
}


def page() -> str:
    """Return the page as it should be."""
    return "\n".join([_HEAD, *(line for part in _PARTS for line in _section(part))])


def _section(part: str) -> Iterator[str]:
    yield f"## {_PARTS[part]}\n"
    yield "| id | binds | clause | source | tests |"
    yield "|--|--|--|--|--|"
    for clause in CLAUSES:
        if clause.part == part:
            yield _row(clause)
    yield ""


def _row(clause: Clause) -> str:
    tests = ", ".join(f"`{test}`" for test in BEHIND.get(clause.id, ()))
    return f"| `{clause.id}` | {clause.binds} | {clause.text} | {clause.source} | {tests} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
