"""Runs inside (tools/nested): the entry-state guest over its whole matrix on the genuine KVM; one JSON line a case.

The matrix (issue 2, section 4): every layout of start_info, 0, 1 and 3 modules, ELF32 and ELF64, with RAM above 4 GiB
too; each dump goes on in long mode, after the guest's own switch. What the guest cannot see is read from KVM first.

Every command line says `quick`: it leaves out the guest's visit to CPL 3, where TR shows itself by what it does. QEMU
(7.2 and 10.0.2 alike) takes a busy TSS, which the ABI asks for, for an invalid one there, and aborts. So TR is proved
here by what KVM holds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import get_args

from entry.expect import differences, hidden_differences
from pvh.build.builder import build
from pvh.engines.kvm.engine import KvmEngine
from pvh.kernel.read import read_kernel
from pvh.machine import Machine
from pvh.plan.options import GIB, MIB, Abi, BootOptions, ModuleSpec
from pvh.plan.planner import plan

MODULES = (
    ModuleSpec("tests/guests/hello.elf", "first module"),
    ModuleSpec("tests/guests/entry32.elf"),
    ModuleSpec("tests/guests/entry64.elf", "third=3 x"),
)


def cases() -> Iterator[tuple[str, BootOptions]]:
    """Give each case: the kernel, and what to boot it with."""
    for kernel in ("tests/guests/entry32.elf", "tests/guests/entry64.elf"):
        for abi in get_args(Abi):
            for count in (0, 1, 3):
                for memory in (64 * MIB, 5 * GIB):
                    cmdline = f"quick modules={count}"
                    yield kernel, BootOptions(memory, 1, cmdline, MODULES[:count], abi, "xen", "kvm", timeout=120)


def main() -> int:
    """Run them all."""
    engine = KvmEngine()
    print(json.dumps({"failing": [check.name for check in engine.probe.failing]}), flush=True)
    failed = 0
    for kernel, options in cases():
        said = bytearray()
        begin = time.monotonic()
        made = plan(read_kernel(kernel), options)
        machine = Machine(build(made), engine, said.extend)
        wrong = hidden_differences(made, machine.vm.vcpus[0].state())
        outcome = machine.run()
        wrong += differences(made, bytes(said))
        failed += bool(wrong or outcome.status)
        case = [kernel.rpartition("/")[2], options.abi, len(options.modules), options.memory // MIB]
        took = round(time.monotonic() - begin, 2)
        found = {
            "case": case,
            "ending": outcome.ending,
            "status": outcome.status,
            "differences": wrong,
            "seconds": took,
        }
        print(json.dumps(found), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
