"""Writes docs/vcpuop.md: what the vcpuop guest is answered by each engine and by real Xen, side by side.

    python -m vcpuop.page        (from tests/, with the repository's root on PYTHONPATH)

The emulator runs now; real Xen's and the KVMs' logs are committed (tests/oracle/logs, tests/vcpuop/logs).
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from oracle.differences import OF_TABLES, VOLATILE
from oracle.recorded import ROOT, log_of
from pvh.engines.select import choose
from smp.boot import boot
from vcpuop.expect import expected, parse

PAGE = ROOT / "docs" / "vcpuop.md"
LOGS = Path(__file__).parent / "logs"
COLUMNS = (EMULATOR, GENUINE, SOFTWARE, XEN) = ("emulator", "KVM in QEMU", "software KVM", "Xen 4.17")
UNNAMED = "?"

_OF_XEN = {case: name for name, cases in OF_TABLES["vcpuop"].items() for case in cases}
_OF_SOFTWARE = {
    "cpuid-not-offered": r"s8\.(64-)?cr4-bit\.(16|18|20|21)",  # FSGSBASE, XSAVE, SMEP, SMAP
    "no-32-bit-paging": r"paged\..*",
}

_HEAD = """# vcpu_op, side by side

What the guest `tests/guests/vcpuop.S` prints with nine vCPUs: one case a line, `rule` being what the ABI's facts ask
for (`tests/vcpuop/expect.py`). `=` is that very value, `-` a case that the column does not have.

- **emulator**: all modes. `make test` runs it, and proves this column.
- **KVM in QEMU**: the genuine kvm-amd (`tests/vcpuop/logs/kvm-amd-in-qemu.log`), without PAE, which hangs under
  TCG's nested paging, and without calls from ring 3.
- **software KVM**: the KVM of the machines this is built on (`tests/vcpuop/logs/software-kvm.log`), without PAE and
  ring 3. An AP that is started straight into 32-bit paging triple-faults there, and the run ends before the last
  modes.
- **Xen 4.17**: real Xen (`tests/oracle/logs/vcpuop.log`), without PAE.
"""

_REASONS = """## Differences

Those of Xen are explained in [oracle.md](oracle.md), by their names; the others here:

- `processor`: which bits of CR4 and EFER INITIALISE allows follows CPUID, the next table. The answer is the rule's
  for the column's processor; the rule shown is for the emulator's.
- `volatile`: Xen's scheduler decides how much of a runstate area is written by then (oracle.md, "Limits of the
  machine below").
- `cpuid-not-offered`: CPUID shows FSGSBASE, XSAVE, SMEP and SMAP, which we did not offer to this KVM's guest;
  INITIALISE allows what was offered.
- `no-32-bit-paging`: a call under 32-bit paging ends in an exception. 4096 is the guest's own mark of that
  (`NO_CALL`).
"""


@dataclass(frozen=True, slots=True)
class Cell:
    """One column's answer to a case; difference is the name of why it is not the emulator's rule, "" where it is."""

    text: str
    difference: str = ""

    @property
    def kind(self) -> str:
        """Return what it counts as: "=", "-", or the difference's name."""
        return self.difference or self.text


Row = tuple[str, str, list[Cell]]  # case, rule, a cell for each column


def columns() -> dict[str, dict[str, str]]:
    """Return the answers by column and case."""
    said, outcome = boot("vcpuop", choose("emulator", print), 9, "")
    assert outcome.ending == "poweroff", outcome.reason
    logs = [(LOGS / f"{name}.log").read_text(encoding="utf-8") for name in ("kvm-amd-in-qemu", "software-kvm")]
    kvm = ["\n".join(line for line in log.splitlines() if not line.startswith("#")) for log in logs]
    texts = (said, *kvm, "\n".join(log_of("vcpuop").said()))
    return {column: parse(text) for column, text in zip(COLUMNS, texts, strict=True)}


def rules_for(answers: dict[str, str]) -> dict[str, str]:
    """Return the rules as they are for the processor that CPUID's lines describe."""
    return expected("\n".join(f"{case}={answer}" for case, answer in answers.items()))


def why(column: str, case: str, answer: str) -> str:
    """Name the reason of an answer that breaks the rule for the column's own processor."""
    if column == XEN:
        changes = any(re.match(pattern, f"{case}={answer}") for pattern, _ in VOLATILE)
        return "volatile" if changes else _OF_XEN.get(case, UNNAMED)
    found = [name for name, pattern in _OF_SOFTWARE.items() if re.fullmatch(pattern, case)]
    return found[0] if column == SOFTWARE and found else UNNAMED


def compare(answers: dict[str, dict[str, str]]) -> Iterator[Row]:
    """Give each case that has a rule, its rule for the emulator's processor, and a cell for each column."""
    rules = {column: rules_for(found) for column, found in answers.items()}
    for case, rule in rules[EMULATOR].items():
        if case.startswith("cpuid."):
            continue
        cells: list[Cell] = []
        for column, found in answers.items():
            if case not in found:
                cells.append(Cell("-"))
                continue
            answer, own = found[case], rules[column][case]
            difference = why(column, case, answer) if answer != own else "processor" if own != rule else ""
            cells.append(Cell("=" if answer == rule else answer, difference))
        yield case, rule, cells


def table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a table."""
    columns = list(heads)
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in (columns, ["---"] * len(columns), *rows))


def summary(rows: list[Row]) -> str:
    """Count the cases of each column, and those that are equal in all."""
    counts = {column: Counter(cells[place].kind for *_, cells in rows) for place, column in enumerate(COLUMNS)}
    everywhere = sum({cell.kind for cell in cells} == {"="} for *_, cells in rows)
    where_there = sum({cell.kind for cell in cells} <= {"=", "-"} for *_, cells in rows)
    lines = (
        (column, count["="], count.total() - count["="] - count["-"], count["-"]) for column, count in counts.items()
    )
    return (
        f"Of {len(rows)} cases {everywhere} are equal to the rule in all four columns, "
        f"{where_there} in every column that has them.\n\n"
    ) + table(("column", "equal to the rule", "different", "not there"), lines)


def differences(rows: list[Row]) -> str:
    """List the cases of each column and name."""
    named: dict[tuple[str, str], list[str]] = defaultdict(list)
    for case, _, cells in rows:
        for column, cell in zip(COLUMNS, cells, strict=True):
            if cell.difference:
                named[column, cell.difference].append(f"`{case}`")
    lines = ((*key, len(cases), ", ".join(cases)) for key, cases in sorted(named.items()))
    return table(("column", "difference", "number", "cases"), lines)


def page() -> str:
    """Return the page."""
    answers = columns()
    rows = list(compare(answers))
    registers = sorted({case for found in answers.values() for case in found if case.startswith("cpuid.")})
    cpuid = ((f"`{name}`", *(found.get(name, "-") for found in answers.values())) for name in registers)
    cases = (
        (
            f"`{case}`",
            rule,
            *(cell.text for cell in cells),
            ", ".join(dict.fromkeys(cell.difference for cell in cells if cell.difference)),
        )
        for case, rule, cells in rows
    )
    parts = (
        _HEAD,
        summary(rows),
        _REASONS,
        differences(rows),
        "## CPUID\n",
        table(("register", *COLUMNS), cpuid),
        "## Cases\n",
        table(("case", "rule", *COLUMNS, "difference"), cases),
    )
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(0)
