"""Whole machines for tests: a guest of 32-bit code with a hypercall page, on either engine."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from engines.flat import CODE, FLAT_STATE, MEMORY, assemble
from engines.kvm.scenarios import guest_image
from pvh.abi.x86 import PAGE_SIZE
from pvh.build.image import Image
from pvh.build.ram import GuestRam
from pvh.machine import Machine
from pvh.plan.layout import SPECIAL_PAGES

if TYPE_CHECKING:
    from pvh.engines.engine import Engine
    from pvh.machine import Watch
    from pvh.outcome import Outcome

HYPERCALLS = 0x20000  # the hypercall page
PREPARE = f"movl $0x40000000, %ecx; movl ${HYPERCALLS}, %eax; xorl %edx, %edx; wrmsr;"
END = "outb %al, $0xf4;"


def call(number: int, *arguments: int) -> str:
    """Return the source of a hypercall."""
    loads = (f"movl ${value}, %{name};" for value, name in zip(arguments, ("ebx", "ecx", "edx"), strict=False))
    return "".join(loads) + f"movl ${HYPERCALLS + number * 32}, %eax; call *%eax;"


def run(
    engine: Engine, source: str, memory: dict[int, bytes], vcpus: int = 1, watch: Watch | None = None
) -> tuple[Outcome, float]:
    """Run a guest that ends with AL as its status; return how it ended, and the processor time that took."""
    image = guest_image(0, vcpus=vcpus)
    image.ram.close()
    ram = GuestRam(((0, MEMORY), (SPECIAL_PAGES[0].start, 8 * PAGE_SIZE)))
    for gpa, data in ({CODE: assemble(PREPARE + source + END)} | memory).items():
        assert ram.write(gpa, data)
    plan = replace(image.plan, options=replace(image.plan.options, platform="xen", timeout=8.0))
    began = time.process_time()
    outcome = Machine(Image(plan, ram, FLAT_STATE), engine, lambda _: None, watch).run()
    ram.close()
    return outcome, time.process_time() - began
