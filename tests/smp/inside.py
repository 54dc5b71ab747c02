"""Runs inside (tools/nested): the SMP guests and vcpuop on the genuine KVM; one JSON line each.

PAE and hypercalls from CPL 3 are left out, for the reasons in modes.inc.
"""

from __future__ import annotations

import json
import sys
import time

from pvh.engines.kvm.engine import KvmEngine
from smp.boot import boot
from smp.expect import CALLBACK, SELFMOD, STORM, summary
from vcpuop.expect import differences

LEFT_OUT = frozenset(("pae", "ring3"))


def main(*names: str) -> int:
    """Run the guests named by `guest:vcpus`."""
    engine = KvmEngine()
    failed = 0
    for name in names:
        guest, vcpus = name.split(":")
        begin = time.monotonic()
        said, outcome = boot(guest, engine, int(vcpus), "nopae noring3")
        wanted = {"smp": summary(int(vcpus), pae=False), "storm": STORM, "selfmod": SELFMOD, "callback": CALLBACK}
        wrong = differences(said, LEFT_OUT) if guest == "vcpuop" else []
        if said != wanted.get(guest, said):
            wrong = said.splitlines()
        if outcome.ending != "poweroff":
            wrong.append(f"ended: {outcome.reason}")
        failed += bool(wrong)
        seconds = round(time.monotonic() - begin, 2)
        print(json.dumps({"guest": name, "wrong": wrong, "seconds": seconds}), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
