"""The same image on two engines: what the guest asks for, exit by exit, and where that first differs.

Only exits that every engine gives are compared, and of these what the guest did, not what it was answered: the time, or
what CPUID says, may well differ. So a difference further on may follow from those.
"""

from __future__ import annotations

from pvh.abi.hypercall import NAMES
from pvh.build.builder import build
from pvh.conformance.milestone import Progress
from pvh.diagnosis import Places
from pvh.engines.exits import Hypercall, MmioRead, MmioWrite, MsrRead, MsrWrite, PortIn, PortOut, Shutdown
from pvh.hints import TYPE_CHECKING
from pvh.machine import Machine
from pvh.plan.layout import LOCAL_APIC
from pvh.plan.planner import plan
from pvh.record import dataclass, replace

if TYPE_CHECKING:
    from pvh.conformance.milestone import Milestone
    from pvh.engines.engine import Engine
    from pvh.engines.exits import Exit
    from pvh.kernel.record import Kernel
    from pvh.plan.options import BootOptions

_MOST = 20_000  # exits


@dataclass(frozen=True, slots=True)
class Step:
    """What a guest did: in words; linear address of the instruction, or of the one behind it; its symbol."""

    what: str
    rip: int
    symbol: str = ""

    def __str__(self) -> str:
        return f"{self.what}, at {self.rip:#x} {self.symbol}".rstrip()


@dataclass(frozen=True, slots=True)
class Difference:
    """The first exit that differs, counted from 0; None where a run was over before."""

    index: int
    first: Step | None
    second: Step | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two engines' names, how many exits of vCPU 0 were the same, and the first difference.

    missing  on each engine the milestone that was not reached, "" if all were
    """

    engines: tuple[str, str]
    agreed: int
    difference: Difference | None
    missing: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class _Run:
    """What vCPU 0 did, whether the guest came to an end of its own, and the milestone that it did not reach."""

    steps: list[Step]
    is_over: bool
    missing: str


def compare(
    kernel: Kernel,
    options: BootOptions,
    engines: tuple[Engine, Engine],
    seconds: float,
    way: tuple[Milestone, ...] = (),
) -> Comparison:
    """Boot on both, each for so many seconds at most, or to the end of the way, and compare.

    way  milestones of the kinds console and hypercall: others not every engine tells

    Raises what plan() and the engines raise.
    """
    options = replace(options, timeout=seconds)
    first, second = (_run(kernel, options, engine, way) for engine in engines)
    names = engines[0].name, engines[1].name
    return Comparison(*_parted(names, first, second), (first.missing, second.missing))


def _parted(names: tuple[str, str], first: _Run, second: _Run) -> tuple[tuple[str, str], int, Difference | None]:
    """Return the names, how many steps are the same, and where the two first do something else."""
    common = min(len(first.steps), len(second.steps))
    same = next((i for i in range(common) if first.steps[i].what != second.steps[i].what), common)
    if same < common:
        return names, same, Difference(same, first.steps[same], second.steps[same])
    # A run that was cut shows nothing by being shorter.
    longer, other = (first, second) if len(first.steps) > common else (second, first)
    if len(longer.steps) > common and other.is_over:
        steps = (longer.steps[common], None) if longer is first else (None, longer.steps[common])
        return names, same, Difference(same, *steps)
    return names, same, None


def _run(kernel: Kernel, options: BootOptions, engine: Engine, way: tuple[Milestone, ...]) -> _Run:
    image = build(plan(kernel, options))
    found: list[Step] = []
    progress = Progress(way)
    try:
        machine: Machine

        def look() -> None:
            if way and progress.next is None:
                machine.end("interrupted", "the milestone is reached")

        def said(data: bytes) -> None:
            progress.said(data)
            look()

        def watch(vcpu: int, event: Exit, _answer: int | None) -> None:
            progress.exited(event)
            what = _words(event)
            if not vcpu and what:
                found.append(Step(what, machine.vm.vcpus[0].state().linear_rip))
                if len(found) == _MOST:
                    machine.end("interrupted", "enough exits")
            look()

        machine = Machine(image, engine, said, watch)
        outcome = machine.run()
        if outcome.cpu:
            places = Places(image, outcome.cpu)
            found = [replace(step, symbol=places.name(step.rip)) for step in found]
        is_over = outcome.ending not in ("deadline", "interrupted", "engine")
        return _Run(found, is_over, str(progress.next or ""))
    finally:
        image.ram.close()


def _words(event: Exit) -> str:
    """Return what an exit asks for; "" for one that not every engine gives, or only answers itself."""
    if isinstance(event, (MmioRead, MmioWrite)) and LOCAL_APIC.start <= event.address < LOCAL_APIC.end:
        return ""
    match event:
        case Hypercall():
            count = 2 if NAMES.get(event.number) == "console_io" else 1  # those behind may be addresses
            arguments = ", ".join(f"{argument:#x}" for argument in event.args[:count])
            words = f"{NAMES.get(event.number, event.number)}({arguments}, ...) in {event.bits}-bit code"
        case PortOut():
            words = f"OUT of {event.value:#x} to port {event.port:#x}, size {event.size}"
        case PortIn():
            words = f"IN from port {event.port:#x}, size {event.size}"
        case MmioWrite():
            words = f"a store of {event.value:#x} to {event.address:#x}, size {event.size}"
        case MmioRead():
            words = f"a load from {event.address:#x}, size {event.size}"
        case MsrWrite():
            words = f"WRMSR {event.index:#x}, {event.value:#x}"
        case MsrRead():
            words = f"RDMSR {event.index:#x}"
        case _:
            words = "a triple fault" if isinstance(event, Shutdown) else ""
    return words
