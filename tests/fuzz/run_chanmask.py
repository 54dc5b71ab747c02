"""Events sent to two vCPUs that mask and unmask their channels meanwhile (tests/guests/chanmask.S). Without pytest.

    python tests/fuzz/run_chanmask.py [--engine emulator|kvm] [--events N] [--burst N] [--seed N] [--json F]

The host sends bursts of 1 to 16 (or N) events to random ones of 48 ports, and waits after each until the guest's
handlers have seen the last event of each port: pending bits may become one, but none may stay unseen. One that does,
for SECONDS, is lost. On the emulator, whose vCPUs and host take turns, events are sent at exits; on KVM by a thread of
its own.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import struct
import sys
import threading
import time

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fuzz.report import Progress, give, header
from pvh.build.builder import build
from pvh.engines.engine import Engine
from pvh.engines.exits import Exit
from pvh.kernel.read import read_kernel
from pvh.machine import Machine
from pvh.outcome import Outcome
from pvh.plan.options import MIB, BootOptions
from pvh.plan.planner import plan
from pvh.record import dataclass
from pvh.xen.domain import Domain
from smp.boot import GUESTS, engine_of

# tests/guests/chanmask.S
SEQ, SEEN, STOP = 0x40000, 0x41000, 0x42000
PORTS = range(4, 52)
BURST = 16
SECONDS = 20.0  # that an event may stay unseen, on a machine that is busy


class Sender:
    """Sends bursts of events, each when the one before was seen, until there were enough."""

    def __init__(self, domain: Domain, events: int, burst: int, seed: int) -> None:
        self._domain = domain
        self._ram = domain.ram
        self._wanted = events
        self._most = burst
        self._rng = random.Random(seed)
        self._counts = dict.fromkeys(PORTS, 0)
        self._since = time.monotonic()
        self._progress = Progress()
        self.sent = self.bursts = self.coalesced = 0
        self.lost: list[int] = []
        self.longest = 0.0

    def step(self) -> bool:
        """Send the next burst if the last was seen; return whether there is more to do."""
        waited = time.monotonic() - self._since
        missing = self._missing()
        if missing and waited < SECONDS:
            return True
        self.longest = max(self.longest, waited) if self.bursts else 0.0
        self.lost = missing
        if missing or self.sent >= self._wanted:
            self._ram.write(STOP, b"\1")
            return False
        self._burst()
        return True

    def _missing(self) -> list[int]:
        """Return the ports whose last event no handler has seen."""
        raw = self._ram.read(SEEN + 4 * PORTS.start, 4 * len(PORTS)) or b""
        return [port for port, seen in zip(PORTS, struct.unpack(f"<{len(PORTS)}I", raw), strict=True)
                if seen != self._counts[port]]  # fmt: skip

    def _burst(self) -> None:
        self.bursts += 1
        self._progress.tell(self.sent, self._wanted)
        self._since = time.monotonic()
        for _ in range(self._rng.randint(1, min(self._most, self._wanted - self.sent))):
            port = self._rng.choice(PORTS)
            self._counts[port] += 1
            self._ram.write(SEQ + 4 * port, self._counts[port].to_bytes(4, "little"))
            with self._domain.lock:
                self.coalesced += self._domain.events.is_pending(port)
                self._domain.events.set_pending(port)
            self.sent += 1


@dataclass(frozen=True, slots=True)
class Run:
    """What was sent, what the guest said, and what was pending and unmasked at the end."""

    sent: int
    bursts: int
    coalesced: int
    lost: tuple[int, ...]
    longest: float
    said: str
    outcome: Outcome
    left: int

    @property
    def counters(self) -> dict[str, tuple[int, ...]]:
        """The guest's counters, for each vCPU."""
        line = self.said.rpartition("chanmask.")[2].partition("\n")[0]
        names: dict[str, tuple[int, ...]] = {}
        for word in line.split():
            name, _, value = word.rpartition("=")
            key = name or next(reversed(names))
            names[key] = (*names.get(key, ()), int(value))
        return names

    def faults(self) -> list[str]:
        """Return what is wrong with it."""
        wrong = [f"port {port} was sent an event that no handler saw" for port in self.lost]
        if self.outcome.ending != "poweroff" or "undone=" not in self.said:
            return [*wrong, f"it ended by {self.outcome.ending}: {self.outcome.reason}", self.said]
        undone = self.counters["undone"]
        wrong += [f"vCPU {vcpu}: {n} mask bits were undone" for vcpu, n in enumerate(undone) if n]
        if self.left:
            wrong.append(f"pending and unmasked at the end: {self.left:#x}")
        return wrong


def run(engine: Engine, events: int, seed: int = 1, burst: int = BURST, timeout: float = 3600.0) -> Run:
    """Send so many events to one guest."""
    options = BootOptions(memory=32 * MIB, vcpus=2, timeout=timeout)
    image = build(plan(read_kernel(os.path.join(GUESTS, "chanmask.elf")), options))
    said = bytearray()
    parallel = engine.traits.has_lapic
    begun = threading.Event()
    ended = threading.Event()

    def hear(data: bytes) -> None:
        said.extend(data)
        if not begun.is_set() and b"begins\n" in said:
            begun.set()

    def watch(_vcpu: int, _event: Exit, _answer: int | None) -> None:
        if begun.is_set() and not parallel and not ended.is_set() and not sender.step():
            ended.set()

    def send() -> None:
        begun.wait(SECONDS)
        while not ended.is_set() and sender.step():
            time.sleep(0)

    try:
        machine = Machine(image, engine, hear, watch)
        domain = machine._board.domain
        assert domain
        sender = Sender(domain, events, burst, seed)
        thread = threading.Thread(target=send, daemon=True)
        if parallel:
            thread.start()
        outcome = machine.run()
        ended.set()
        if parallel:
            thread.join()
        page = bytes(domain.physmap.view(domain.shared.page))
        layout = domain.shared.layout
        pending, mask = (
            int.from_bytes(page[at : at + 8], "little") for at in (layout.evtchn_pending, layout.evtchn_mask)
        )
    finally:
        image.ram.close()
    return Run(
        sender.sent, sender.bursts, sender.coalesced, tuple(sender.lost), sender.longest,
        said.decode("ascii", "replace"), outcome, pending & ~mask,
    )  # fmt: skip


def main(argv: list[str]) -> int:
    """Run a campaign and report it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", choices=("emulator", "kvm"), default="emulator")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--burst", type=int, default=BURST, help="events at most, between two looks")
    parser.add_argument("--seed", type=lambda text: int(text, 0), default=1)
    parser.add_argument("--json", help="write the report here, too")
    options = parser.parse_args(argv)
    engine, about = engine_of(options.engine)
    if engine is None:
        print(about, file=sys.stderr)
        return 2
    one = run(engine, options.events, options.seed, options.burst)
    faults = one.faults()
    report = {
        **header("tests/fuzz/run_chanmask.py", argv),
        "engine": f"{options.engine} {about}".strip(),
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        "events": one.sent,
        "bursts": one.bursts,
        "found pending already": one.coalesced,
        "lost": len(one.lost),
        "guest's counters, of each vCPU": one.counters if not faults else one.said,
        "seconds": round(one.outcome.seconds, 1),
        "longest wait for a burst, seconds": round(one.longest, 3),
        "faults": faults,
    }
    give(report, options.json)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
