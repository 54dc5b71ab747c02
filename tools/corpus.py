"""Write docs/corpus.md and docs/corpus.json: the odd kernels of tests/kernel, and what each loader makes of them.

    python -m tools.corpus

A file of the corpus is in the JSON, zlib and base64, where that is short.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT / "tests") not in sys.path:
    sys.path.insert(0, str(ROOT / "tests"))

from kernel.case import Case  # noqa: E402 - the corpus lies with the tests
from kernel.corpus import CASES  # noqa: E402
from pvh.kernel.loaders import LoaderVerdict, judge_all  # noqa: E402
from pvh.kernel.read import read_source  # noqa: E402
from pvh.kernel.source import BytesSource  # noqa: E402

PAGE, DATA = ROOT / "docs" / "corpus.md", ROOT / "docs" / "corpus.json"
SCHEMA = "pvh.corpus/1"
_WORDS = {"multiboot": "multiboot", "Linux": "Linux", "left": "e_entry", "as HVM": "firmware", "PVH": "part"}
_SHORT = 2048  # bytes, packed

_HEAD = """# Odd kernels, and who boots them

The files that `tests/kernel/test_corpus.py` reads `pvh inspect` with, and what each loader makes of them by its rules:
`pvh inspect --loaders FILE` says the same of any file, with messages, sources, and how far each answer is known.
[corpus.json](corpus.json) has all of it, and the files.

run
:   The loader itself does so. `make test-loaders` gives every file to QEMU 7.2, to Firecracker 1.12.1 and a libkrun of
    2026 on this machine's KVM, and to libxenguest 4.17 without a hypervisor: it needs none to load a kernel.

read
:   Its source says so, of the version named: Xen's builder of dom0, Cloud Hypervisor.

unverified
:   Neither.

A number is the address at which the loader enters by PVH; a dash, that it refuses the file; a word, that it boots it
otherwise: `firmware`, as HVM firmware; `part`, by PVH, but not all of it is there.

`pvh inspect --loaders --json` gives `loaders`, a list of `loader`, `pvh` (true: by PVH), `path` (how; "" if not),
`entry` (a physical address, or null), `says` (the message), `why` (the cause, where the message does not name it),
`source` (repository, version, file) and `verified` (see above). So does each case of corpus.json, without `source`.

"""


def verdicts(case: Case) -> tuple[LoaderVerdict, ...]:
    """Return what each loader makes of a case."""
    return judge_all(read_source(BytesSource(case.id, case.data)))


def as_data() -> dict[str, object]:
    """Return the corpus as the JSON file has it."""
    return {"schema": SCHEMA, "cases": [_case(case) for case in sorted(CASES, key=lambda case: case.id)]}


def _case(case: Case) -> dict[str, object]:
    packed = base64.b64encode(zlib.compress(case.data, 9)).decode()
    return {
        "id": case.id,
        "bytes": len(case.data),
        "sha256": hashlib.sha256(case.data).hexdigest(),
        "file": packed if len(packed) <= _SHORT else None,
        "problems": list(case.problems),
        "warnings": list(case.warnings),
        "loaders": {
            verdict.loader: {"pvh": verdict.pvh, "path": verdict.path, "entry": verdict.entry, "says": verdict.says,
                             "why": verdict.why, "verified": verdict.verified}
            for verdict in verdicts(case)
        },
    }  # fmt: skip


def data() -> str:
    """Return the JSON file's text: a case on each line."""
    made = as_data()
    cases = made["cases"]
    assert isinstance(cases, list)
    rows = ",\n".join(json.dumps(case, sort_keys=True) for case in cases)
    return f'{{"schema": "{SCHEMA}", "cases": [\n{rows}\n]}}\n'


def page() -> str:
    """Return the page's text."""
    rows: list[str] = []
    for case in sorted(CASES, key=lambda case: case.id):
        found = verdicts(case)
        if not rows:
            names = [verdict.loader for verdict in found]
            rows += [f"| file | {' | '.join(names)} |", "|" + "--|" * (len(names) + 1)]
        rows.append(f"| {case.id} | {' | '.join(map(_cell, found))} |")
    return _HEAD + "\n".join(rows) + "\n"


def _cell(verdict: LoaderVerdict) -> str:
    if verdict.pvh:
        return f"{verdict.entry:#x}"
    return next((word for start, word in _WORDS.items() if verdict.path.startswith(start)), "-")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    DATA.write_text(data(), encoding="utf-8")
