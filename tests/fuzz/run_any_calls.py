"""Random hypercalls of every number by guests (tests/guests/anycall.S), as many as it takes. Without pytest.

    python tests/fuzz/run_any_calls.py [--engine emulator|kvm] [--calls N] [--each N] [--seed N] [--json F]

A guest is 32-bit code or 64-bit code, by turns; its seed follows from the first. Between its calls it writes random
fields to the rings of console and xenstore, to shared_info and to page tables of its own. The run fails, and names the
seed, if a guest ends in a way that its last call does not explain, if a result is no errno, if a guest takes
longer than SECONDS, or if this process grows.
"""

from __future__ import annotations

import argparse
import os
import random
import struct
import sys
import time
from collections import Counter

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fuzz.attacker import Attacker, Call, Places
from fuzz.report import Progress, give, header, resident
from pvh.abi import errno, memory
from pvh.abi import hypercall as abi
from pvh.build.builder import build
from pvh.engines.engine import Engine
from pvh.kernel.read import read_kernel
from pvh.machine import Machine
from pvh.outcome import Outcome
from pvh.plan.options import MIB, BootOptions
from pvh.plan.planner import plan
from pvh.record import dataclass
from pvh.xen.domain import CONSOLE_PAGE
from pvh.xen.xenstore import XENSTORE_PAGE
from smp.boot import GUESTS, engine_of

# tests/guests/anycall.S
RAM = 32 * MIB
CONTROL, CALLS, ARG, BUFFER, PML4 = 0x1700000, 0x1800000, 0x8000, 0x9000, 0x1E00000
CALL = struct.Struct("<8Q64s64s64s")
MOST = (0x1C00000 - CALLS) // CALL.size
UNANSWERED = 0x5050505050505050
SHARED = 0xA000  # where shared_info is put first; random calls move it
TABLES = PML4 + 0x2400  # page directory entries of what no call needs
RINGS = (
    CONSOLE_PAGE.start + 3072, CONSOLE_PAGE.start + 1024, XENSTORE_PAGE.start + 2048, XENSTORE_PAGE.start,
    XENSTORE_PAGE.start + 1000,
)  # fmt: skip
POKED = (*RINGS, SHARED, SHARED + 0x800, SHARED + 0xA00, TABLES)
PLACES = Places(RAM, ARG, BUFFER, (SHARED, TABLES, XENSTORE_PAGE.start, CONSOLE_PAGE.start, CONSOLE_PAGE.start + 4090))
MOST_RISKY = 1e-4  # of the calls may end the run
SECONDS = 300.0  # a list may be as long as memory: a million operations in one call, half a minute on a busy machine
GROWTH = 32 * MIB  # of the process after a tenth of the run


@dataclass(frozen=True, slots=True)
class Run:
    """One guest: what it called, by name, operation and result; how it ended, and its last call if that was early."""

    seed: int
    bits: int
    results: Counter[tuple[str, int, str]]
    outcome: Outcome
    last: Call | None

    @property
    def early(self) -> bool:
        """Whether it did not make all its calls."""
        return self.last is not None

    def fault(self) -> str | None:
        """Return what is wrong with it, if anything is: a guest may end itself, but never the machine."""
        odd = [key for key in self.results if key[2] == "odd"]
        if odd:
            return f"results that are no errno: {odd}"
        if self.outcome.ending in ("engine", "deadline"):
            return f"it ended by {self.outcome.ending}: {self.outcome.reason}; last call: {self.last}"
        return None


def calls(seed: int, count: int, bits: int) -> list[tuple[Call, int, bytes]]:
    """Return calls, each with what is poked before it: where (0: nowhere), and what."""
    rng = random.Random(seed)
    attacker = Attacker(rng, PLACES, gentle=True)
    physmap = struct.pack(memory.ADD_TO_PHYSMAP_64 if bits == 64 else memory.ADD_TO_PHYSMAP_32,
                          abi.DOMID_SELF, 0, memory.XENMAPSPACE_SHARED_INFO, 0, SHARED >> 12)  # fmt: skip
    first = Call(abi.MEMORY_OP, (memory.ADD_TO_PHYSMAP, ARG, 0, 0, 0), physmap.ljust(64, b"\0"), bytes(64))
    made = [(first, 0, b"")]
    while len(made) < count:
        poked = rng.choice(POKED) if rng.random() < 0.2 else 0
        call = attacker.ring(rng.choice((1, 2))) if poked in RINGS and rng.random() < 0.5 else attacker.call(bits)
        made.append((call, poked, attacker.structure()))
    return made


def run(engine: Engine, seed: int, count: int, bits: int) -> Run:
    """Run one guest; results are read where it keeps them, so that an early end loses none."""
    options = BootOptions(memory=RAM, vcpus=2, timeout=SECONDS)
    image = build(plan(read_kernel(os.path.join(GUESTS, "anycall.elf")), options))
    made = calls(seed, count, bits)
    packed = b"".join(
        CALL.pack(call.number, *call.args, poked, UNANSWERED, call.structure, call.buffer, poke)
        for call, poked, poke in made
    )
    try:
        assert image.ram.write(CALLS, packed)
        assert image.ram.write(CONTROL, struct.pack("<III", count, bits == 64, 0))
        outcome = Machine(image, engine, lambda _: None).run()
        raw = image.ram.read(CALLS, len(packed)) or b""
    finally:
        image.ram.close()
    results: Counter[tuple[str, int, str]] = Counter()
    for (call, _, _), fields in zip(made, CALL.iter_unpack(raw), strict=True):
        result = fields[7]
        if result == UNANSWERED:
            return Run(seed, bits, results, outcome, call)
        results[_key(call, result, bits)] += 1
    return Run(seed, bits, results, outcome, None)


def _key(call: Call, result: int, bits: int) -> tuple[str, int, str]:
    signed = result - (1 << bits) if result >> bits - 1 else result
    said = "ok" if not -4096 < signed < 0 else errno.NAMES.get(-signed, "odd")
    name = abi.NAMES.get(call.number, str(call.number) if call.number < 64 else "64 and above")
    return name, call.operation if call.operation < 64 else -1, said


class Campaign:
    """Guests one after another, and what came of them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.results: Counter[tuple[str, int, str]] = Counter()
        self.widths: Counter[int] = Counter()
        self.endings: Counter[str] = Counter()
        self.enders: Counter[str] = Counter()
        self.faults: list[str] = []
        self.sizes: list[int] = []
        self.longest = 0.0

    @property
    def calls(self) -> int:
        """All calls that came back."""
        return sum(self.results.values())

    def go(self, count: int, each: int, seed: int) -> None:
        """Make at least so many calls, by guests of so many each."""
        bits, progress = 64, Progress()
        while self.calls < count and len(self.faults) < 10:
            self._add(run(self._engine, seed, min(each, max(2, count - self.calls)), bits))
            seed = seed * 1664525 + 1013904223 & 0xFFFFFFFF  # Knuth's "quick and dirty" generator
            bits = 96 - bits
            progress.tell(self.calls, count)
        early = self.enders.total()
        if self.calls >= 100_000 and early > MOST_RISKY * self.calls:
            self.faults.append(f"{early} calls that ended the run are too many")
        if self.grown > GROWTH:
            self.faults.append(f"the process grew by {self.grown >> 20} MiB")

    @property
    def grown(self) -> int:
        """Bytes by which the process grew since a tenth of the guests had run."""
        return max(0, self.sizes[-1] - self.sizes[len(self.sizes) // 10]) if self.sizes else 0

    def _add(self, one: Run) -> None:
        self.results += one.results
        self.widths[one.bits] += one.results.total()
        self.endings[one.outcome.ending if one.early else "its own end"] += 1
        self.longest = max(self.longest, one.outcome.seconds)
        self.sizes.append(resident())
        if one.last:
            self.enders[
                f"{abi.NAMES.get(one.last.number, one.last.number)} {one.last.operation}: {one.outcome.ending}"
            ] += 1
        fault = one.fault()
        if fault:
            self.faults.append(f"seed {one.seed:#010x}, {one.bits}-bit, {one.results.total()} calls: {fault}")

    def coverage(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return how often each operation of each number had each result. Operation -1: 64 and above."""
        table: dict[str, dict[str, dict[str, int]]] = {}
        for (name, operation, said), count in sorted(self.results.items()):
            table.setdefault(name, {}).setdefault(str(operation), {})[said] = count
        return table


def main(argv: list[str]) -> int:
    """Run a campaign and report it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", choices=("emulator", "kvm"), default="emulator")
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--each", type=int, default=10_000, help=f"calls a guest, at most {MOST}")
    parser.add_argument("--seed", type=lambda text: int(text, 0), default=1)
    parser.add_argument("--json", help="write the report here, too")
    options = parser.parse_args(argv)
    engine, about = engine_of(options.engine)
    if engine is None:
        print(about, file=sys.stderr)
        return 2
    begin = time.monotonic()
    campaign = Campaign(engine)
    campaign.go(options.calls, options.each, options.seed)
    sizes = campaign.sizes
    give({
        **header("tests/fuzz/run_any_calls.py", argv),
        "engine": f"{options.engine} {about}".strip(),
        "calls": campaign.calls,
        "by width": campaign.widths,
        "guests": campaign.endings.total(),
        "endings": campaign.endings,
        "calls that ended the run": campaign.enders,
        "coverage: number, operation (-1: 64 and above), result": campaign.coverage(),
        "seconds": round(time.monotonic() - begin, 1),
        "longest guest, seconds": round(campaign.longest, 2),
        "resident, MiB": {"after the first": sizes[0] >> 20, "largest": max(sizes) >> 20, "last": sizes[-1] >> 20},
        "faults": campaign.faults,
    }, options.json)  # fmt: skip
    return 1 if campaign.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
