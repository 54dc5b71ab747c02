"""A guest cannot make the process end: random code, tables and answers, in a process of its own.

PVH_FUZZ multiplies the number of guests.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from engines.emulator.harness import (
    CODE0,
    HANDLER,
    gate32,
    gate64,
    image32,
    image64,
    long_world,
    opened,
    protected_world,
    run,
)
from engines.flat import CODE, MEMORY, REAL_STATE, flat_image
from pvh.abi import x86
from pvh.build.image import Image
from pvh.build.ram import GuestRam
from pvh.engines.exits import Broken, Exit, Shutdown

GUESTS = 150
SECONDS_A_GUEST = 0.05

# Openings of instructions that change modes, segments, tables, or leave the processor.
OPENINGS = (
    "0f22 0f20 0f23 0f21 0f01 0f00 0f30 0f32 f4 cd cc cf fa fb 0f05 0f07 0f34 0f35 0fa2 e6 e4 6c 6e f36c f36e 9c 9d 8e"
    " ea 9a cb 0fae 0fc7 d9 dd f390 0f08 0f09 0f31 66 f3 f2 48 0f38 0f3a c4 c5 62 0f0b 0fff f1 ce ff2d ff1d 0fb2 0f02"
    " c8"
)


def random_code(random_: random.Random) -> bytes:
    openings = [bytes.fromhex(text) for text in OPENINGS.split()]
    parts: list[bytes] = []
    for _ in range(100):
        head = random_.choice(openings) if random_.random() < 0.5 else b""
        parts.append(head + random_.randbytes(random_.randrange(5)))
    return b"".join(parts)


def random_image(random_: random.Random) -> Image:
    kind = random_.choice(["real", "protected", "long"])
    cpl = random_.choice([0, 0, 3])
    if kind == "real":
        ram, state = GuestRam(((0, MEMORY),)), REAL_STATE
        ram.write(0, random_.randbytes(1024))
    elif kind == "protected":
        ram, state = protected_world({v: random_gate(random_, long=False) for v in range(256)}, cpl=cpl)
    else:
        ram, state = long_world({v: random_gate(random_, long=True) for v in range(256)}, cpl=cpl)
    values = (0, 1, CODE, 0x200000, 0xFEE00000, 0x1000, 0x2000, 0x11000, x86.MSR_EFER, 1 << 51, 1 << 52)
    gprs = [random_.choice([*values, random_.getrandbits(64)]) for _ in range(16)]
    gprs[4] = state.gprs[4]
    ram.write(HANDLER, random_.randbytes(64))
    at = 0x8000 if kind == "real" else CODE
    return flat_image(random_code(random_), replace(state, gprs=tuple(gprs)), at=at, ram=ram)


def random_gate(random_: random.Random, *, long: bool) -> bytes:
    make = gate64 if long else gate32
    kind = random_.choice([0xE, 0xF] if long else [0xE, 0xF, 0xE, 0xF, 6, 5])
    target = random_.choice([HANDLER, CODE, CODE + random_.randrange(300)])
    return make(CODE0, target, kind, random_.choice([0, 3]), present=random_.random() < 0.95)


def run_random_guest(seed: int) -> None:
    random_ = random.Random(seed)
    with opened(random_image(random_)) as vm:
        vcpu = vm.vcpus[0]
        exits = 0

        def sink(exit_: Exit) -> int | None:
            nonlocal exits
            exits += 1
            if exits > 200 or isinstance(exit_, (Shutdown, Broken)):
                vcpu.kick()
            if random_.random() < 0.05:
                vcpu.raise_vector(random_.randrange(256))
            if random_.random() < 0.02:
                vcpu.state()
            return random_.choice([None, 0, random_.getrandbits(64)])

        timer = threading.Timer(SECONDS_A_GUEST, vcpu.kick)
        timer.start()
        vcpu.run(sink)
        timer.cancel()
        vcpu.state()
        vcpu.recent()


def test_random_guests_end_in_no_crash() -> None:
    count = GUESTS * int(os.environ.get("PVH_FUZZ", "1"))
    seed = random.SystemRandom().randrange(1 << 32)
    tests = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", __file__, str(seed), str(count)],
        env={**os.environ, "PYTHONPATH": str(tests)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-200:]}{done.stderr[-2000:]}"


@pytest.mark.parametrize("high", [1 << 40, 1 << 51])
def test_a_page_table_entry_cannot_reach_the_engine_s_memory(high: int) -> None:
    image = image64("mov 0x3ff000, %rax", {x86.PF: gate64(CODE0, HANDLER)})
    image.ram.write(0x14000 + 8 * 0x1FF, (high | 3).to_bytes(8, "little"))
    assert run(image).stack(1, 8) == (9,)  # present, reserved bit


@pytest.mark.parametrize("high", [1 << 40, 1 << 51, 1 << 52])
def test_page_tables_in_the_engine_s_memory_hold_nothing(high: int) -> None:
    gates = {x86.PF: gate64(CODE0, HANDLER)}
    assert isinstance(run(image64(f"mov ${high:#x}, %rax; mov %rax, %cr3; nop", gates)).exits[-1], Shutdown)


def test_a_far_jump_through_a_task_segment_does_not_end_the_process() -> None:
    image = image32("ljmp $0x28, $0", {vector: gate32(CODE0, HANDLER) for vector in range(32)})
    assert run(image).exits


if __name__ == "__main__":
    for number in range(int(sys.argv[2])):
        sys.stdout.write(f"seed {int(sys.argv[1]) + number}\n")
        sys.stdout.flush()
        run_random_guest(int(sys.argv[1]) + number)
