"""One boot of a kernel on an engine, to a milestone: did it get there, and if not, what happened?"""

from __future__ import annotations

import time
from threading import Timer

from pvh.abi.hypercall import NAMES
from pvh.build.builder import build
from pvh.conformance.finding import Instruction
from pvh.conformance.milestone import BAD_ENDS, Milestone, Progress
from pvh.diagnosis import Places, explain, mode
from pvh.engines.exits import Hypercall
from pvh.errors import UsageError
from pvh.hints import TYPE_CHECKING
from pvh.machine import Machine
from pvh.plan.planner import plan
from pvh.record import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvh.build.image import Image
    from pvh.conformance.counting import CountedEngine
    from pvh.engines.engine import Engine, Vcpu
    from pvh.engines.exits import Exit
    from pvh.kernel.record import Kernel
    from pvh.outcome import Outcome
    from pvh.plan.options import BootOptions
    from pvh.timeline.record import Timeline

_MOST_TEXT = 1 << 16  # bytes of console output kept
_MOST_EVENTS = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """When to give a boot up.

    seconds  of host time
    blocks   basic blocks executed, where they are counted; None: no limit
    exits    exits, each of which takes the host more time than blocks do; None: no limit
    quiet    seconds after the first line of output; None: no limit
    """

    seconds: float = 60.0
    blocks: int | None = None
    exits: int | None = None
    quiet: float | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened first at a time: seconds from the first instruction, blocks executed (or None)."""

    seconds: float
    blocks: int | None
    what: str


@dataclass(frozen=True, slots=True)
class Boot:
    """What came of a boot.

    exits    how many the machine handled
    reached  whether every milestone was
    missing  the milestone that was not, "" if all were
    ending   as in outcome.py, or `stopped`: at the milestone, or at a limit
    reason   one clause for a person
    console  what it said, the first 64 KiB
    events   what happened first, in order
    calls    names of the hypercalls it made, each once, in order
    at       where it stood at the end, if it went wrong
    trail    lines for a person: what is known about a run that went wrong
    status   exit status that the ending stands for, or that the guest gave
    halted   it ended because no processor was left running
    """

    reached: bool
    missing: str
    ending: str
    reason: str
    seconds: float
    blocks: int | None
    exits: int
    console: bytes
    events: tuple[Event, ...] = ()
    calls: tuple[str, ...] = ()
    at: Instruction | None = None
    trail: tuple[str, ...] = ()
    status: int = 0
    halted: bool = False

    @property
    def broke(self) -> bool:
        """Whether the guest came to a bad end, whatever it was to reach."""
        return self.ending in (*BAD_ENDS, "hang")


def boot(
    kernel: Kernel,
    options: BootOptions,
    engine: Engine,
    way: tuple[Milestone, ...],
    limits: Limits,
    timeline: Timeline | None = None,
) -> Boot:
    """Boot once; a timeline is told what happens. Raises what plan(), build() and the engine raise."""
    image = build(plan(kernel, options))
    try:
        return _Run(image, engine, way, limits, timeline).run()
    finally:
        image.ram.close()


class _Run:
    """The watcher of one run; its methods are called by the machine's threads."""

    def __init__(
        self, image: Image, engine: Engine, way: tuple[Milestone, ...], limits: Limits, timeline: Timeline | None
    ) -> None:
        self._image = image
        self._limits = limits
        self._timeline = timeline
        self._progress = Progress(way)
        self._until_end = bool(way) and way[-1].kind in ("ends", "unbroken")
        self._text = bytearray()
        self._exits = 0
        self._line = 0  # where the line that is being said begins
        self._events: list[Event] = []
        self._seen: set[str] = set()
        self._calls: dict[str, None] = {}  # in order
        self._stopped = ""
        self._timers: list[Timer] = []
        self._counts = _counting(engine, way, self._counted)
        self._machine = Machine(image, self._counts or engine, self._said, self._exited)
        self._vcpu = self._machine.vm.vcpus[0]
        self._machine.measure(self._measured)
        self._started = time.monotonic()

    def run(self) -> Boot:
        self._after(self._limits.seconds, "no milestone in {:g} s")
        self._started = time.monotonic()
        try:
            outcome = self._machine.run()
        finally:
            for timer in self._timers:
                timer.cancel()
        ending = "stopped" if self._stopped else outcome.ending
        if self._counts:
            self._progress.counted(self._counts.counted)
        self._progress.ended(ending, outcome.status, halted=outcome.halted)
        reached = self._progress.next is None
        blocks = self._vcpu.executed
        self._note(f"{ending}: {self._stopped or outcome.reason}")
        return Boot(
            reached=reached,
            missing=str(self._progress.next or ""),
            ending=ending,
            reason=self._stopped or outcome.reason,
            seconds=outcome.seconds,
            blocks=blocks,
            exits=self._exits,
            console=bytes(self._text[:_MOST_TEXT]),
            events=tuple(self._events),
            calls=tuple(self._calls),
            at=None if reached else _instruction(outcome, self._image),
            trail=() if reached else tuple(explain(outcome, self._image)),
            status=outcome.status,
            halted=outcome.halted,
        )

    def _after(self, seconds: float, why: str) -> None:
        timer = Timer(seconds, self._stop, [why.format(seconds)])
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _stop(self, why: str) -> None:
        self._stopped = self._stopped or why
        self._machine.end("interrupted", why)

    def _note(self, what: str) -> None:
        """Keep what happens for the first time."""
        if what not in self._seen and len(self._events) < _MOST_EVENTS:
            self._seen.add(what)
            self._events.append(Event(time.monotonic() - self._started, self._vcpu.executed, what))

    def _look(self) -> None:
        if self._progress.next is None and not self._stopped and not self._until_end:
            self._stop("the milestone is reached")

    def _said(self, data: bytes) -> None:
        if self._timeline:
            self._timeline.console(data)
        first = not self._text
        if len(self._text) < _MOST_TEXT:
            self._text += data
            while (end := self._text.find(b"\n", self._line)) >= 0:
                line = self._text[self._line : end].decode(errors="replace").strip()
                self._line = end + 1
                if line:
                    self._note(f"says: {line[:100]}")
        if first and self._limits.quiet is not None:
            self._after(self._limits.quiet, "it said something")
        self._progress.said(data)
        self._look()

    def _exited(self, vcpu: int, event: Exit, answer: int | None) -> None:
        if self._timeline:
            self._timeline.watch(vcpu, event, answer)
        if isinstance(event, Hypercall):
            name = NAMES.get(event.number)
            if name and name not in self._calls:
                self._calls[name] = None
            self._note(f"calls {name or event.number}")
        self._exits += 1
        if self._limits.exits is not None and self._exits > self._limits.exits:
            self._stop(f"no milestone in {self._limits.exits} exits")
        self._progress.exited(event)
        self._look()

    def _counted(self, instructions: int) -> None:
        self._progress.counted(instructions)
        self._look()

    def _measured(self, vcpu: Vcpu) -> None:
        if self._stopped:
            return
        blocks = vcpu.executed or 0
        state = vcpu.state()
        self._note(f"runs in {mode(state).partition(', CPL')[0]}")
        self._progress.executed(state.bits)
        self._look()
        if self._limits.blocks is not None and blocks > self._limits.blocks:
            self._stop(f"no milestone in {self._limits.blocks} blocks of code")


def _counting(engine: Engine, way: tuple[Milestone, ...], tell: Callable[[int], None]) -> CountedEngine | None:
    """Return the engine as one that counts instructions, if one of the milestones needs that."""
    numbers = frozenset(int(milestone.value) for milestone in way if milestone.kind == "instructions")
    if not numbers:
        return None
    from pvh.conformance.counting import CountedEngine
    from pvh.engines.emulator.engine import EmulatorEngine

    if not isinstance(engine, EmulatorEngine):
        raise UsageError("only the emulator counts instructions", found=f"engine {engine.name}")
    return CountedEngine(engine, numbers, tell)


def _instruction(outcome: Outcome, image: Image) -> Instruction | None:
    """Return where a run that went wrong stands, or stood before it left for nowhere."""
    from pvh.disassembly import Disassembler

    cpu = outcome.cpu
    if cpu is None:
        return None
    places = Places(image, cpu)
    decoder = Disassembler(image.ram, cpu)
    for address in (cpu.linear_rip, *reversed(outcome.recent)):
        found = next(decoder.decode(address), None)
        if found is not None:
            return Instruction(address, places.name(address), found.code, found.text)
    return Instruction(cpu.linear_rip, places.name(cpu.linear_rip))
