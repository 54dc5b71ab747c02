"""Runs inside (tools/nested): the entry-state guest over its whole matrix on the genuine KVM; one JSON line a case.

Left out are the cases that visit CPL 3, where TR shows itself by what it does: QEMU (7.2 and 10.0.2 alike) takes a busy
TSS, which the ABI asks for, for an invalid one there, and aborts. TR is proved here by what KVM holds.
"""

from __future__ import annotations

import json
import sys
import time

from entry.matrix import cases, run
from pvh.engines.kvm.engine import KvmEngine


def main() -> int:
    """Run them all."""
    engine = KvmEngine()
    print(json.dumps({"failing": [check.name for check in engine.probe.failing]}), flush=True)
    failed = 0
    for case in cases():
        if case.ring3:
            continue
        begin = time.monotonic()
        wrong = run(case, engine, "/tmp")
        failed += bool(wrong)
        print(
            json.dumps({"case": case.name, "wrong": wrong, "seconds": round(time.monotonic() - begin, 2)}), flush=True
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
