"""Runs inside (tools/nested): every scenario and halt on the genuine KVM. Lines `ok NAME` or `FAILED NAME: why`.

There is no disassembler inside: each occurrence of VMCALL's bytes counts as an instruction, which is true of these
guests (test_patch.py).
"""

from __future__ import annotations

import sys
import traceback

from engines.kvm.halts import HALTS
from engines.kvm.keeping import KEEPING
from engines.kvm.scenarios import SCENARIOS, occurrences
from pvh.engines.kvm import patch
from pvh.engines.kvm.engine import KvmEngine


def main() -> int:
    """Run them all; the status is the number that failed."""
    patch.find_sites = occurrences
    engine = KvmEngine()
    failed = 0
    for scenario in (*SCENARIOS, *HALTS, *KEEPING):
        try:
            scenario(engine)
        except Exception:  # noqa: BLE001 - the others shall run
            failed += 1
            last = traceback.format_exc().strip().splitlines()[-3:]
            print(f"FAILED {scenario.__name__}: {' | '.join(line.strip() for line in last)}", flush=True)
        else:
            print(f"ok {scenario.__name__}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
