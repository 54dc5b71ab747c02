"""Writes docs/vcpuop.md: what the vcpuop guest is answered by each engine and by real Xen, side by side.

    python -m vcpuop.page        (from tests/, with the repository's root on PYTHONPATH)

The emulator runs now; real Xen's and the KVMs' logs are committed (tests/oracle/logs, tests/vcpuop/logs).
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from oracle.differences import OF_TABLES
from oracle.recorded import ROOT, log_of
from pvh.engines.select import choose
from smp.boot import boot
from vcpuop.expect import expected, parse

PAGE = ROOT / "docs" / "vcpuop.md"
LOGS = Path(__file__).parent / "logs"
COLUMNS = ("emulator", "KVM in QEMU", "software KVM", "Xen 4.17")

_HEAD = """# vcpu_op, side by side

What the guest `tests/guests/vcpuop.S` prints: one case a line, `rule` being what the ABI's facts ask for
(`tests/vcpuop/expect.py`). `=` is an answer equal to the rule, `-` a case that the column does not have.

- **emulator**: all modes. `make test` runs it, and proves this column.
- **KVM in QEMU**: the genuine kvm-amd (`tests/vcpuop/logs/kvm-amd-in-qemu.log`), without PAE, which hangs under TCG's
  nested paging, and without calls from ring 3.
- **software KVM**: the KVM of the machines this is built on (`tests/vcpuop/logs/software-kvm.log`), as far as it goes:
  it cannot start a processor straight into 32-bit paging, and the run ends there. What differs in this column differs
  in no other: calls made under 32-bit paging do not arrive (EAX stays 4096), CPUID shows bits that we did not offer,
  and an INIT of a running processor leaves it as it was.
- **Xen 4.17**: real Xen (`tests/oracle/logs/vcpuop.log`), without PAE. [oracle.md](oracle.md) has the reason of each
  difference, by the name in the last column.

Cases without a rule are the processor's CPUID, from which the swept CR4 and EFER bits follow.
"""


def columns() -> list[dict[str, str]]:
    """Return each column's answers by case."""
    said, outcome = boot("vcpuop", choose("emulator", print), 9, "")
    assert outcome.ending == "poweroff", outcome.reason
    logs = [(LOGS / f"{name}.log").read_text(encoding="utf-8") for name in ("kvm-amd-in-qemu", "software-kvm")]
    kvm = ["\n".join(line for line in log.splitlines() if not line.startswith("#")) for log in logs]
    return [parse(text) for text in (said, *kvm, "\n".join(log_of("vcpuop").said()))]


def rules_for(column: dict[str, str]) -> dict[str, str]:
    """Return the expected answers; CPUID lines are the processor's own, and have none."""
    rules = expected("\n".join(f"{case}={answer}" for case, answer in column.items()))
    return {case: rule for case, rule in rules.items() if not case.startswith("cpuid.")}


def page() -> str:
    """Return the page."""
    answers = columns()
    rules = [rules_for(column) for column in answers]
    reasons = {case: name for name, cases in OF_TABLES["vcpuop"].items() for case in cases}
    counts: Counter[tuple[str, str]] = Counter()
    rows: list[str] = []
    for case in answers[0]:
        cells: list[str] = []
        for name, answer, rule in zip(COLUMNS, answers, rules, strict=True):
            cell = "-" if case not in answer else "=" if answer[case] == rule.get(case) else answer[case]
            counts[name, cell if cell in "-=" else "other"] += 1
            cells.append(cell)
        rows.append(f"| `{case}` | {rules[0].get(case, '')} | {' | '.join(cells)} | {reasons.get(case, '')} |")
    summary = [f"| {name} | {counts[name, '=']} | {counts[name, 'other']} | {counts[name, '-']} |" for name in COLUMNS]
    return "\n".join(
        (
            _HEAD,
            *("| column | equal to the rule | other | not there |", "|---|---:|---:|---:|", *summary, ""),
            *(
                f"| case | rule | {' | '.join(COLUMNS)} | Xen's difference |",
                "|---|---|---|---|---|---|---|",
                *rows,
                "",
            ),
        )
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(0)
