"""The runs of the entry-state guest: every ABI revision, 0, 1 and 3 modules, ELF32 and ELF64, and some odd ones.

Without pytest, for the nested KVM's runner.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from entry.expect import differences, hidden_differences
from pvh.build.builder import build
from pvh.engines.engine import Engine
from pvh.kernel.read import read_kernel
from pvh.machine import Machine
from pvh.plan.options import GIB, MIB, Abi, BootOptions, ModuleSpec
from pvh.plan.planner import plan

GUESTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "guests")
ABIS: tuple[Abi, ...] = ("v1", "v0", "draft-c")
# Each module's bytes and command line: longer than a page; shorter than the dump's 16 bytes, and none; an empty string.
MODULES = ((bytes(range(256)) * 20 + b"!", "first module=1"), (b"tiny", None), (b"\xff" * 4096, ""))
SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """One boot: a name for people, the ELF class, the options, how many of MODULES it gets."""

    name: str
    bits: int
    options: BootOptions
    modules: int

    @property
    def ring3(self) -> bool:
        """Whether the guest goes to CPL 3, to show what TR holds."""
        return "quick" not in self.options.cmdline


def cases() -> Iterator[Case]:
    """Yield the matrix, then what the matrix does not vary."""
    plain = BootOptions(memory=32 * MIB, cmdline="console=hvc0 quick", timeout=SECONDS)
    for abi in ABIS:
        for modules in (0, 1, 3):
            for bits in (32, 64):
                yield Case(f"{abi}-{modules}-elf{bits}", bits, replace(plain, abi=abi), modules)
    yield Case("ram-above-4-gib", 64, replace(plain, memory=5 * GIB), 0)
    yield Case("bare-platform", 64, replace(plain, platform="bare"), 1)
    yield Case("initial-domain-flags", 64, replace(plain, privileged=True, initdomain=True), 0)
    yield Case("copied", 32, replace(plain, copy=True), 3)
    yield Case("ring-3", 64, replace(plain, cmdline="console=hvc0"), 1)
    yield Case("no-command-line", 32, replace(plain, cmdline=""), 1)


def run(case: Case, engine: Engine, folder: str) -> list[str]:
    """Boot a case with modules written to a folder; return all that is not as the ABI and the plan say."""
    specs: list[ModuleSpec] = []
    for index, (data, cmdline) in enumerate(MODULES[: case.modules]):
        path = os.path.join(folder, f"module{index}")
        with open(path, "wb") as stream:
            stream.write(data)
        specs.append(ModuleSpec(path, cmdline))
    kernel = read_kernel(os.path.join(GUESTS, f"entry{case.bits}.elf"))
    made = plan(kernel, replace(case.options, modules=tuple(specs)))
    image = build(made)
    said = bytearray()
    try:
        machine = Machine(image, engine, said.extend)
        before = hidden_differences(made, machine.vm.vcpus[0].state())
        outcome = machine.run()
    finally:
        image.ram.close()
    ended = [] if (outcome.ending, outcome.status) == ("exit-port", 0) else [f"ended: {outcome.reason}"]
    return before + differences(made, bytes(said)) + ended
