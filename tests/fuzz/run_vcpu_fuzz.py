"""Random vcpu_op calls by a guest (tests/guests/vcpufuzz.S), over as many guests as it takes. Without pytest.

    python tests/fuzz/run_vcpu_fuzz.py [--engine emulator|kvm] [--calls N] [--each N] [--seed N] [--words W] [--json F]

Each guest's seed follows from the first. The run fails, and names the seed, if a guest ends in a way that none of its
calls explains, if a result is no errno, or if this process grows.
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import time
from collections import Counter

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fuzz.report import Progress, give, header, resident
from pvh.abi import errno, vcpu_op
from pvh.build.builder import build
from pvh.engines.engine import Engine
from pvh.kernel.read import read_kernel
from pvh.machine import Machine
from pvh.outcome import Outcome
from pvh.plan.options import MIB, BootOptions
from pvh.plan.planner import plan
from pvh.record import dataclass
from smp.boot import GUESTS, engine_of

# tests/guests/vcpufuzz.S
CALLERS = ("flat 32-bit", "64-bit", "paged 32-bit", "64-bit")
VCPUS, OPS, ROW = 16, 17, 256
COUNTS, BLOCKS, BLOCK = 0x54000, 0x66000, 64
END = "vcpufuzz end\n"
MOST_RISKY = 1e-4  # of the calls may end the run
SECONDS = 60.0  # for a guest whose calls take a few, on a machine that is busy
GROWTH = 32 * MIB  # of the process after a tenth of the run
NAMES = {
    number: name.lower()
    for name, number in vars(vcpu_op).items()
    if name in {
        "INITIALISE", "UP", "DOWN", "IS_UP", "GET_RUNSTATE_INFO", "REGISTER_RUNSTATE_MEMORY_AREA", "SET_PERIODIC_TIMER",
        "STOP_PERIODIC_TIMER", "SET_SINGLESHOT_TIMER", "STOP_SINGLESHOT_TIMER", "REGISTER_VCPU_INFO", "SEND_NMI",
        "GET_PHYSID", "REGISTER_VCPU_TIME_MEMORY_AREA", "REGISTER_RUNSTATE_PHYS_AREA", "REGISTER_VCPU_TIME_PHYS_AREA",
    }
} | {16: "unknown"}  # fmt: skip
ERRNOS = {-number: f"-{name}" for name, number in vars(errno).items() if name.startswith("E")}


@dataclass(frozen=True, slots=True)
class Run:
    """One guest: what it called, by (operation, result) and by caller; what it said, and how it ended."""

    seed: int
    results: Counter[tuple[int, int]]
    callers: tuple[int, ...]
    risky: int
    odd: int
    said: str
    outcome: Outcome

    @property
    def calls(self) -> int:
        """All calls that came back."""
        return sum(self.callers)

    @property
    def overwritten(self) -> bool:
        """Whether the guest's two ways of counting differ: what was started in a random state writes anywhere.

        Each caller may have been stopped between the one and the other.
        """
        return not 0 <= self.calls - sum(self.results.values()) <= len(self.callers)

    @property
    def complete(self) -> bool:
        """Whether it came to its own end."""
        return self.outcome.ending == "poweroff" and self.said.endswith(END)

    def fault(self) -> str | None:
        """Return what is wrong with the run, if anything is."""
        ending, reason = self.outcome.ending, self.outcome.reason
        if self.overwritten:
            return None if self.risky else "calls were lost"
        if self.odd:
            return f"{self.odd} results are no errno"
        # A vCPU that was started in a random state executes anything, which a KVM may be unable to.
        excused = self.risky and (ending != "engine" or "KVM cannot go on" in reason or "refused to enter" in reason)
        return None if self.complete or excused else f"it ended by {ending}: {reason}"


def run(engine: Engine, seed: int, calls: int, words: str = "") -> Run:
    """Run one guest; its counters are read where it keeps them, so that an early end loses none."""
    options = BootOptions(memory=32 * MIB, vcpus=VCPUS, cmdline=f"{seed:08x} {calls:08x} {words}", timeout=SECONDS)
    image = build(plan(read_kernel(os.path.join(GUESTS, "vcpufuzz.elf")), options))
    said = bytearray()
    try:
        outcome = Machine(image, engine, said.extend).run()
        counts = image.ram.read(COUNTS, 4 * ROW * OPS * len(CALLERS)) or b""
        blocks = image.ram.read(BLOCKS, BLOCK * len(CALLERS)) or b""
    finally:
        image.ram.close()
    results: Counter[tuple[int, int]] = Counter()
    for place, (count,) in enumerate(struct.iter_unpack("<I", counts)):
        if count:
            results[place // ROW % OPS, place % ROW - 128] += count
    heads = [struct.unpack_from("<3I", blocks, at) for at in range(0, len(blocks), BLOCK)]
    callers, risky, odd = zip(*heads, strict=True)
    return Run(seed, results, callers, sum(risky), sum(odd), said.decode("ascii", "replace"), outcome)


class Campaign:
    """Guests one after another, and what came of them."""

    def __init__(self, engine: Engine, words: str = "") -> None:
        self._engine = engine
        self._words = words
        self.results: Counter[tuple[int, int]] = Counter()
        self.callers: Counter[str] = Counter()
        self.endings: Counter[str] = Counter()
        self.risky = 0
        self.faults: list[str] = []
        self.sizes: list[int] = []
        self.longest = 0.0
        self.uncounted = 0  # guests that overwrote their counters

    @property
    def calls(self) -> int:
        """All calls that came back."""
        return sum(self.results.values())

    def go(self, calls: int, each: int, seed: int) -> None:
        """Make at least so many calls, by guests of so many each."""
        progress = Progress()
        while self.calls < calls and len(self.faults) < 10:
            one = run(self._engine, seed, min(each, calls - self.calls), self._words)
            self._add(one)
            seed = seed * 1664525 + 1013904223 & 0xFFFFFFFF  # Knuth's "quick and dirty" generator
            progress.tell(self.calls, calls)
        if self.calls >= 100_000 and self.risky > MOST_RISKY * self.calls:
            self.faults.append(f"{self.risky} calls that may end the run are too many")
        if self.grown > GROWTH:
            self.faults.append(f"the process grew by {self.grown >> 20} MiB")

    @property
    def grown(self) -> int:
        """Bytes by which the process grew since a tenth of the guests had run."""
        return max(0, self.sizes[-1] - self.sizes[len(self.sizes) // 10]) if self.sizes else 0

    def _add(self, one: Run) -> None:
        self.endings["its own end" if one.complete else one.outcome.ending] += 1
        self.longest = max(self.longest, one.outcome.seconds)
        self.sizes.append(resident())
        fault = one.fault()
        if fault:
            self.faults.append(f"seed {one.seed:#010x}, {one.calls} calls, {one.risky} risky: {fault}")
        if one.overwritten:
            self.uncounted += 1
            return
        self.results += one.results
        self.callers.update(dict(zip((f"{n}: {mode}" for n, mode in enumerate(CALLERS)), one.callers, strict=True)))
        self.risky += one.risky

    def coverage(self) -> dict[str, dict[str, int]]:
        """Return how often each operation had each result."""
        table: dict[str, dict[str, int]] = {}
        for (op, result), count in sorted(self.results.items()):
            table.setdefault(NAMES[op], {})[ERRNOS.get(result, str(result))] = count
        return table


def main(argv: list[str]) -> int:
    """Run a campaign and report it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", choices=("emulator", "kvm"), default="emulator")
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--each", type=int, default=20_000, help="calls a guest")
    parser.add_argument("--seed", type=lambda text: int(text, 0), default=1)
    parser.add_argument("--words", default="", help="`nopaged`: no caller in 32-bit paged mode")
    parser.add_argument("--json", help="write the report here, too")
    options = parser.parse_args(argv)
    engine, said = engine_of(options.engine)
    if engine is None:
        print(said, file=sys.stderr)
        return 2
    begin = time.monotonic()
    campaign = Campaign(engine, options.words)
    campaign.go(options.calls, options.each, options.seed)
    seconds = time.monotonic() - begin
    report = {
        **header("tests/fuzz/run_vcpu_fuzz.py", argv),
        "engine": f"{options.engine} {said}".strip(),
        "calls": campaign.calls,
        "calls that may end the run": campaign.risky,
        "guests": sum(campaign.endings.values()),
        "endings": campaign.endings,
        "guests not counted, for they overwrote their counters": campaign.uncounted,
        "callers": campaign.callers,
        "coverage": campaign.coverage(),
        "seconds": round(seconds, 1),
        "longest guest, seconds": round(campaign.longest, 2),
        "resident, MiB": {"after the first": campaign.sizes[0] >> 20, "largest": max(campaign.sizes) >> 20,
                          "last": campaign.sizes[-1] >> 20},
        "faults": campaign.faults,
    }  # fmt: skip
    give(report, options.json)
    return 1 if campaign.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
