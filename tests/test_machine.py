"""A run from its first exit to its one ending, on the scripted engine: no guest code, so every exit is the test's."""

from __future__ import annotations

import errno
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from build.plans import plan
from pvh.abi.hypercall import EVENT_CHANNEL_OP, HVM_OP, SCHED_OP, VCPU_OP
from pvh.build.cpu_state import CpuState, SegmentRegister
from pvh.build.image import Image
from pvh.build.ram import GuestRam
from pvh.engines.engine import Traits
from pvh.engines.exits import Broken, Exit, Halt, Hypercall, MmioWrite, PortOut, Shutdown
from pvh.engines.scripted import ScriptedEngine, Step
from pvh.errors import EngineError
from pvh.machine import Machine
from pvh.outcome import Outcome
from pvh.plan.options import BootOptions, Platform

ARG = 0x8000
CONSOLE_PAGE = 0xFEFFF000
LEAVE = PortOut(0xF4, 1, 0)
EMULATOR = Traits(has_lapic=False, sees_halt=True, sees_init_sipi=False, exact_stop=True, recent=True)
FLAT = CpuState(cr0=0x11, rip=0x100000, cs=SegmentRegister(8, 0, 0xFFFFFFFF, 0xC9B))


class Bench:
    """Makes machines for scripts and gives their memory back."""

    def __init__(self) -> None:
        self.said = bytearray()
        self.rams: list[GuestRam] = []

    def machine(
        self,
        *script: Step,
        others: tuple[tuple[Step, ...], ...] = (),
        platform: Platform = "xen",
        timeout: float | None = 20,
        traits: Traits | None = None,
        console: Callable[[bytes], None] | None = None,
    ) -> Machine:
        ram = GuestRam(((0, 1 << 20), (0xFEFF8000, 0x8000)))
        self.rams.append(ram)
        scripts = dict(enumerate((script, *others)))
        options = BootOptions(vcpus=len(scripts), platform=platform, timeout=timeout)
        engine = ScriptedEngine(scripts, traits) if traits else ScriptedEngine(scripts)
        return Machine(Image(plan(options=options), ram, FLAT), engine, console or self.said.extend)

    def run(
        self,
        *script: Step,
        others: tuple[tuple[Step, ...], ...] = (),
        platform: Platform = "xen",
        traits: Traits | None = None,
        console: Callable[[bytes], None] | None = None,
    ) -> Outcome:
        return self.machine(*script, others=others, platform=platform, traits=traits, console=console).run()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    for ram in made.rams:
        ram.close()


def put(layout: str, *values: int, at: int = ARG) -> Step:
    """What a guest does before a hypercall with a structure."""
    return lambda ram: ram.write(at, struct.pack(layout, *values))


def call(number: int, *args: int) -> Hypercall:
    a, b, c, *_ = (*args, 0, 0, 0)
    return Hypercall(number, (a, b, c, 0, 0), 32, 0)


def shutdown(reason: int) -> tuple[Step, ...]:
    return put("<I", reason), call(SCHED_OP, 2, ARG)


class TestEndings:
    @pytest.mark.parametrize(
        ("reason", "ending", "status"),
        [
            (0, "poweroff", 0),
            (1, "reboot", 10),
            (2, "suspend", 10),
            (3, "crash", 11),
            (4, "crash", 11),
            (5, "reboot", 10),
            (6, "crash", 11),
            (255, "crash", 11),
        ],
    )
    def test_sched_op_shutdown(self, bench: Bench, reason: int, ending: str, status: int) -> None:
        """SHUTDOWN_* of public/sched.h; libxl destroys a domain whose reason it does not know."""
        outcome = bench.run(*shutdown(reason))
        assert (outcome.ending, outcome.status) == (ending, status)
        assert "sched_op(shutdown" in outcome.reason

    @pytest.mark.parametrize("value", [0, 1, 99, 255])
    @pytest.mark.parametrize("platform", ["xen", "bare"])
    def test_the_exit_port(self, bench: Bench, value: int, platform: Platform) -> None:
        outcome = bench.run(PortOut(0xF4, 1, value), platform=platform)
        assert (outcome.ending, outcome.status) == ("exit-port", value)

    def test_a_triple_fault_of_any_vcpu_names_it(self, bench: Bench) -> None:
        outcome = bench.run(others=((Shutdown("no IDT"),),))
        assert (outcome.ending, outcome.status, outcome.vcpu) == ("triple-fault", 12, 1)
        assert outcome.reason == "vCPU 1 triple-faulted: no IDT"

    def test_what_an_engine_cannot_execute(self, bench: Bench) -> None:
        outcome = bench.run(Broken("emulation failure"))
        assert (outcome.ending, outcome.status) == ("engine", 14)
        assert "emulation failure" in outcome.reason

    def test_an_error_of_the_host(self, bench: Bench) -> None:
        def fail(_ram: GuestRam) -> None:
            raise EngineError("the host is out of memory")

        outcome = bench.run(fail)
        assert (outcome.ending, outcome.status, outcome.reason) == ("engine", 14, "the host is out of memory")

    def test_a_defect_ends_the_run_too(self, bench: Bench) -> None:
        """A vCPU's thread that died alone would leave the others, and the user, waiting for ever."""

        def fail(_ram: GuestRam) -> None:
            raise KeyError(7)

        outcome = bench.run(fail)
        assert (outcome.ending, outcome.status, outcome.vcpu) == ("engine", 14, 0)
        assert "KeyError(7)" in outcome.reason

    def test_a_console_that_nobody_reads(self, bench: Bench) -> None:
        def gone(_data: bytes) -> None:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

        outcome = bench.run(PortOut(0xE9, 1, 65), console=gone)
        assert (outcome.ending, outcome.status) == ("interrupted", 141)

    @pytest.mark.parametrize("timeout", [0, 0.05])
    def test_the_deadline(self, bench: Bench, timeout: float) -> None:
        machine = bench.machine(timeout=timeout)  # no script: a processor that waits
        started = time.monotonic()
        outcome = machine.run()
        assert (outcome.ending, outcome.status, outcome.vcpu) == ("deadline", 13, None)
        assert timeout <= time.monotonic() - started < 5

    @pytest.mark.parametrize("timeout", [None, 1e9])
    def test_an_end_from_outside(self, bench: Bench, timeout: float | None) -> None:
        """As the handler of SIGINT does; also before a deadline further away than the host can wait."""
        machine = bench.machine(timeout=timeout)
        threading.Timer(0.05, machine.end, ("interrupted", "SIGINT came")).start()
        outcome = machine.run()
        assert (outcome.ending, outcome.status, outcome.reason) == ("interrupted", 130, "SIGINT came")

    def test_the_first_ending_counts(self, bench: Bench) -> None:
        machine = bench.machine(PortOut(0xF4, 1, 3))
        machine.end("interrupted", "early")
        machine.end("deadline", "late")
        assert machine.run().reason == "early"
        two = bench.run(*shutdown(1), PortOut(0xF4, 1, 3))
        assert two.ending == "reboot"

    def test_no_exit_is_handled_after_the_ending(self, bench: Bench) -> None:
        bench.run(PortOut(0xF4, 1, 0), PortOut(0xE9, 1, 65))
        assert not bench.said


class TestHalt:
    """Engines that report HLT; a vCPU sleeps in the machine until an interrupt is raised."""

    def test_with_interrupts_off_xen_powers_the_domain_off(self, bench: Bench) -> None:
        """The last vCPU that halts for good goes down (xen/arch/x86/hvm/hvm.c, hvm_hlt)."""
        assert bench.run(Halt(wakes=False), traits=EMULATOR).ending == "poweroff"

    def test_with_interrupts_off_a_bare_board_hangs(self, bench: Bench) -> None:
        outcome = bench.run(Halt(wakes=False), traits=EMULATOR, platform="bare")
        assert (outcome.ending, outcome.status, outcome.vcpu) == ("hang", 13, 0)

    def test_a_halt_that_nothing_can_end_is_a_hang(self, bench: Bench) -> None:
        outcome = bench.run(Halt(wakes=True), traits=EMULATOR)
        assert (outcome.ending, outcome.status) == ("hang", 13)

    def test_the_local_apics_timer_ends_it(self, bench: Bench) -> None:
        script = (MmioWrite(0xFEE000F0, 4, 0x1FF), MmioWrite(0xFEE00320, 4, 0x40), MmioWrite(0xFEE00380, 4, 1 << 20))
        machine = bench.machine(*script, Halt(wakes=True), LEAVE, traits=EMULATOR, platform="bare")
        assert machine.run().ending == "exit-port"
        assert machine.engine.vms[0].vectors == [(0, 0x40)]  # type: ignore[attr-defined]

    def test_a_masked_timer_does_not(self, bench: Bench) -> None:
        script = (MmioWrite(0xFEE000F0, 4, 0x1FF), MmioWrite(0xFEE00380, 4, 1 << 10))
        assert bench.run(*script, Halt(wakes=True), LEAVE, traits=EMULATOR, platform="bare").ending == "hang"

    @pytest.mark.parametrize("vector", [call(HVM_OP, 23, ARG), None], ids=["upcall vector", "callback vector"])
    def test_xens_singleshot_timer_ends_it(self, bench: Bench, vector: Hypercall | None) -> None:
        """With a callback vector the local APIC may be disabled: it is passed by (facts, 9)."""
        how = (
            (MmioWrite(0xFEE000F0, 4, 0x1FF), put("<IB3x", 0, 0xF3), vector, MmioWrite(0xFEE000B0, 4, 0))
            if vector
            else (put("<HHIQ", 0x7FF0, 0, 0, 2 << 56 | 0xF3), call(HVM_OP, 0, ARG))
        )
        script = (
            *how,
            *(put("<III", 0, 0, 0), call(EVENT_CHANNEL_OP, 1, ARG)),
            *(put("<QI", 20_000_000, 0), call(VCPU_OP, 8, 0, ARG)),
            *(Halt(wakes=True), Halt(wakes=True), LEAVE),
        )
        machine = bench.machine(*script, traits=EMULATOR)
        outcome = machine.run()
        # An upcall vector is asserted once as it is set. The timer ends the first HLT, nothing ends the second.
        assert (outcome.ending, dict(outcome.exits)["Halt"]) == ("hang", 2)
        assert machine.engine.vms[0].vectors == [(0, 0xF3)] * (2 if vector else 1)  # type: ignore[attr-defined]

    def test_a_timer_far_away_waits_without_error(self, bench: Bench) -> None:
        """2**63 - 1 ns is more than the host's own timers can count."""
        script = (put("<QI", (1 << 63) - 1, 0), call(VCPU_OP, 8, 0, ARG), Halt(wakes=True))
        machine = bench.machine(*script, traits=EMULATOR, timeout=0.1)
        assert machine.run().ending == "deadline"


class TestOutput:
    def test_every_byte_before_the_end_comes_out(self, bench: Bench) -> None:
        text = bytes(range(256)) * 4
        bench.run(*(PortOut(0xE9, 1, byte) for byte in text), LEAVE)
        assert bench.said == text

    def test_so_does_what_stands_in_the_console_ring_without_a_notification(self, bench: Bench) -> None:
        def write(ram: GuestRam) -> None:
            ram.write(CONSOLE_PAGE + 1024, b"panic: ")
            ram.write(CONSOLE_PAGE + 3084, struct.pack("<I", 7))

        bench.run(write, Shutdown())
        assert bench.said == b"panic: "

    def test_platform_bare_has_a_uart(self, bench: Bench) -> None:
        bench.run(PortOut(0x3F8, 1, 66), LEAVE, platform="bare")
        bench.run(PortOut(0x3F8, 1, 67), LEAVE, platform="xen")
        assert bench.said == b"B"


class TestOutcome:
    def test_it_tells_the_engine_the_exits_and_the_registers(self, bench: Bench) -> None:
        state = CpuState(rip=0x1234)
        outcome = bench.run(state, PortOut(0xE9, 1, 65), call(99), LEAVE)
        assert (outcome.engine, outcome.cpu is not None and outcome.cpu.rip) == ("scripted", 0x1234)
        assert outcome.exits == (("Hypercall", 1), ("PortOut", 2))
        assert 0 <= outcome.seconds < 5

    def test_the_engine_is_closed(self, bench: Bench) -> None:
        machine = bench.machine(LEAVE)
        machine.run()
        assert machine.engine.vms[0].closed  # type: ignore[attr-defined]

    def test_a_vcpu_that_is_stuck_in_its_engine_is_given_up(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its registers cannot be asked for (KVM would wait for it), and its memory stays."""
        monkeypatch.setattr("pvh.processors._LEAVE_SECONDS", 0.05)
        release = threading.Event()
        machine = bench.machine(lambda _ram: release.wait(), timeout=0.05)
        outcome = machine.run()
        closed = machine.engine.vms[0].closed  # type: ignore[attr-defined]
        release.set()
        assert (outcome.ending, outcome.cpu, closed) == ("deadline", None, False)

    def test_a_watch_is_told_every_exit_and_its_answer(self, bench: Bench) -> None:
        seen: list[tuple[int, Exit, int | None]] = []
        machine = bench.machine(call(17, 0), LEAVE)

        def watch(vcpu: int, event: Exit, answer: int | None) -> None:
            seen.append((vcpu, event, answer))

        machine._watch = watch
        machine.run()
        assert [(vcpu, type(event), answer) for vcpu, event, answer in seen] == [
            (0, Hypercall, 4 << 16 | 20),
            (0, PortOut, None),
        ]
