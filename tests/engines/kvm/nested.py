"""Runs inside (tools/nested): every scenario and halt on the genuine KVM. Lines `ok NAME` or `FAILED NAME: why`."""

from __future__ import annotations

import sys
import traceback

from engines.kvm.halts import HALTS
from engines.kvm.keeping import KEEPING
from engines.kvm.scenarios import SCENARIOS
from pvh.engines.kvm.engine import KvmEngine


def main() -> int:
    """Run them all; the status is the number that failed."""
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
