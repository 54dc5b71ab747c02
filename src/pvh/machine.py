"""Machine: an image, a board and an engine, run to an outcome. Owns threads, timers and the deadline."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from threading import Lock

from pvh.abi.sched import SHUTDOWN_NAMES
from pvh.abi.vcpu_op import RUNSTATE_BLOCKED
from pvh.abi.x86 import RFLAGS_IF
from pvh.board import Board
from pvh.build.builder import changed_files
from pvh.clock import InstructionClock
from pvh.devices.lapic import LocalApic
from pvh.engines.exits import Break, Broken, Exit, Halt, Shutdown, Sink
from pvh.errors import PvhError
from pvh.hints import TYPE_CHECKING, Any
from pvh.kept import apply, capture
from pvh.outcome import STATUS, Ending, Outcome
from pvh.processors import Processors
from pvh.xen.cpuid import apic_id, bare_leaves, with_apic_id, xen_leaves
from pvh.xen.host import DOMID

if TYPE_CHECKING:
    from pvh.build.cpu_state import CpuState
    from pvh.build.image import Image
    from pvh.devices.typed import Typed
    from pvh.engines.engine import Awaits, CpuidTable, Engine, Vcpu, Vm

Watch = Callable[[int, Exit, int | None], None]

_SHUTDOWN_ENDINGS: dict[str, Ending] = {
    "poweroff": "poweroff",
    "reboot": "reboot",
    "suspend": "suspend",
    "crash": "crash",
    "watchdog": "crash",
    "soft_reset": "reboot",
}
_LONGEST_WAIT = 3600.0  # seconds
_LOOK_NS = 200_000_000
_LONGEST_TURN = 1 << 20  # blocks, some 20 ms: how long what is typed waits where no thread may end a turn
_TIMERS = ("domain", "lapic")  # the guest's; what is typed, and what we are asked, come from outside
_NOTHING_WAKES = "every vCPU is halted, and no timer or event is left to wake one"
_STANDING = frozenset({Halt, Shutdown, Broken, Break})  # exits after which the processor does not go on by itself
_SIGPIPE_STATUS = 141  # what a shell reports of a program that SIGPIPE ended


class Machine:
    """One guest on one engine, for one run. It is the Host of the guest's Domain.

    console  takes what the guest says
    watch    is told every exit: vCPU, exit, answer
    typed    has what is typed to the guest
    tsc_khz  the TSC's frequency that a guest whose state is to be applied was told
    begun    run() has started the vCPUs
    """

    def __init__(
        self,
        image: Image,
        engine: Engine,
        console: Callable[[bytes], None],
        watch: Watch | None = None,
        typed: Typed | None = None,
        *,
        tsc_khz: int | None = None,
    ) -> None:
        """Put the image on the engine. Raises EngineError when the engine or the host refuses."""
        self.image = image
        self.engine = engine
        self._clock = engine.clock
        self._tsc_khz = tsc_khz or engine.tsc_khz  # an engine may measure it anew each time
        self._watch = watch
        self._typed = typed
        self._answer: Callable[[bool], None] | None = None
        self._bell = Lock()  # released: there is news for the supervisor
        self._looking = Lock()  # held while the supervisor looks at vCPUs, and while those are kept or changed
        self._endings: list[tuple[Ending, int, str, int | None]] = []
        self._counts: Counter[type[Exit]] = Counter()
        self._seen, self._halted = 0, False
        self.begun = threading.Event()
        self._command: Iterator[int] = iter(b"")
        self._at_rest: Callable[[], None] | None = None
        self._on_break: Callable[[int], None] | None = None
        self._due: dict[tuple[str, int], int] = {}
        self._behind = 0  # ns by which the guest's clocks lag the host's: it was not there meanwhile
        self._started = time.monotonic_ns()
        self.vm: Vm = engine.open(image, tuple(self._cpuid(vcpu) for vcpu in range(image.plan.options.vcpus)))
        self._board = Board(image, engine, self.vm, self, console)
        self._processors = Processors(
            self.vm,
            [self._sink(vcpu) for vcpu in self.vm.vcpus],
            parallel=engine.traits.has_lapic,
            ended=lambda: bool(self._endings),
            service=self._service,
            longest=self._longest,
        )

    def measure(self, meter: Callable[[Vcpu], None]) -> None:
        """Have meter told of a vCPU after each of its turns, of some 20 000 blocks, where vCPUs take turns."""
        self._processors.measure(meter)

    def run(self, *, close: bool = True) -> Outcome:
        """Run the guest to its end and give the engine's resources back, unless it is to go on from a snapshot."""
        self._started = time.monotonic_ns()
        if self._typed:
            # Its arrival is a timer that is due at once: memory of the guest is changed between two runs of vCPU 0.
            self._typed.connect(lambda: self._arm(("typed", 0), 0))
        self._processors.start(self._guard, self._asleep)
        self.begun.set()
        try:
            self._supervise()
        except BaseException:
            # Ctrl-C in somebody's program: no vCPU may run on in memory that its owner is about to give back.
            self.end("interrupted", "its program was interrupted")
            self._processors.stop()
            raise
        stuck = not self._processors.stop()
        self._board.flush()
        outcome = self._outcome(stuck=stuck)
        if close and not stuck:
            self.vm.close()
        return outcome

    def pause(self) -> bool:
        """Have all vCPUs stop between two instructions, until unpause(); False when the run ends, or has ended."""
        return self._processors.pause()

    def listen(self, typed: Typed) -> None:
        """Take what is typed from somewhere else. No vCPU runs."""
        self._typed = typed
        typed.connect(lambda: self._arm(("typed", 0), 0))

    def step(self, vcpu: int) -> None:
        """Have one vCPU execute one instruction. No vCPU runs. Raises EngineError where the engine cannot."""
        self._processors.step(vcpu)

    def rest(self) -> None:
        """Have all vCPUs stop as for pause(), which is to follow, but wait for nothing: also from a watch."""
        self._processors.rest()

    @property
    def resting(self) -> bool:
        """Whether vCPUs stop, or have stopped, until unpause()."""
        return self._processors.resting

    def unpause(self) -> None:
        """Go on after pause()."""
        self._processors.unpause()

    def debug(self, on_break: Callable[[int], None]) -> None:
        """Have on_break told of the vCPU that meets a breakpoint (Vm.break_at); all stop then, as after rest()."""
        self._on_break = on_break

    def doing(self, vcpu: int) -> str:
        """Say in few words what a vCPU does. No vCPU runs."""
        domain = self._board.domain
        stage = domain.processors[vcpu].stage if domain else "up"
        return "sleeps" if stage == "up" and self._processors.is_halted(vcpu) else stage

    def event_channels(self) -> list[str]:
        """Return a line for each event channel of the guest. No vCPU runs."""
        return self._board.domain.events.describe() if self._board.domain else []

    def capture(self) -> dict[str, Any]:
        """Return what is kept of the guest, its memory apart: see kept.py. No vCPU runs. Raises EngineError."""
        with self._looking:
            now = self._clock.now()
            return {
                "tsc_khz": self._tsc_khz,
                "vm": self.vm.capture(),
                "now": now - self._behind,
                "due": {key: at - now for key, at in self._due.items() if key[0] in _TIMERS},
                "processors": capture(self._processors),
                "board": capture(self._board),
            }

    def apply(self, state: dict[str, Any]) -> None:
        """Go on from what capture() returned. No vCPU runs, and guest memory is what it was then.

        Its clocks go on from where they were. Raises EngineError when the engine refuses.
        """
        with self._looking:
            self._endings = []
            self.vm.apply(state["vm"])
            apply(self._processors, state["processors"])
            now = self._clock.now()
            self._behind = now - state["now"]
            apply(self._board, state["board"])
            self._due = {key: now + left for key, left in state["due"].items()}
        self._ring()

    def end(self, ending: Ending, reason: str, *, vcpu: int | None = None, status: int | None = None) -> None:
        """End the run; the first ending counts. From any thread, and from a signal handler."""
        self._endings.append((ending, STATUS.get(ending, 0) if status is None else status, reason, vcpu))
        self._ring()

    def ask_to_power_off(self, answer: Callable[[bool], None]) -> None:
        """Ask the guest to power off, as a toolstack does, between two runs of vCPU 0; answer whether it listens.

        From any thread, and from a signal handler. The answer comes on vCPU 0's thread.
        """
        self._answer = answer
        self._arm(("ask", 0), 0)

    def ready(self) -> None:
        """Give the guest what was typed, if that was held until it is ready for it."""
        if self._typed:
            self._typed.release()

    def command(self, content: bytes, at_rest: Callable[[], None] | None = None) -> None:
        """Set what the guest reads from the command port.

        at_rest  is called once, by the thread of run() and with no vCPU running, when the guest waits for it
        """
        self._command = iter(content)
        self._at_rest = at_rest

    def waiting(self) -> None:
        """The guest waits for its command: have the thread of run() call who wanted to know."""
        if self._at_rest:
            self._processors.rest()
            self._ring()

    def next_byte(self) -> int:
        """Return the next byte of the command; 0 behind it."""
        return next(self._command, 0)

    def leave(self, value: int) -> None:
        """End the run with the value a guest wrote to the exit port."""
        self.end("exit-port", f"the guest wrote {value} to exit port 0xf4", status=value)

    # The Host of the personality.

    @property
    def tsc_khz(self) -> int:
        """Frequency of the guest's TSC, one figure for CPUID, vcpu_time_info and our own clock."""
        return self._tsc_khz

    @property
    def stopping(self) -> bool:
        """Whether the run has its ending."""
        return bool(self._endings)

    def guest_tsc(self) -> int:
        """Return what RDTSC in the guest would give now."""
        return self.vm.tsc()

    def wallclock(self) -> int:
        """Return ns since 1970, UTC."""
        return self._clock.wallclock()

    def raise_vector(self, vcpu: int, vector: int) -> None:
        """Deliver an edge interrupt through the vCPU's local APIC."""
        self._board.raise_vector(self.vm.vcpus[vcpu], vector)

    def inject(self, vcpu: int, vector: int) -> None:
        """Interrupt a vCPU past its local APIC, as long as its evtchn_upcall_pending is set."""
        domain = self._board.domain
        assert domain
        self.vm.vcpus[vcpu].inject(vector, partial(domain.events.wants_upcall, vcpu))
        self.wake(vcpu)

    def deliver(self, vcpu: int, vector: int) -> None:
        """Hand a processor whose local APIC is ours what that wants taken."""
        self.vm.vcpus[vcpu].raise_vector(vector)
        self.wake(vcpu)

    def block(self, vcpu: int) -> None:
        """Have a vCPU sleep after the hypercall it is in."""
        self._processors.halt(vcpu)

    def wake(self, vcpu: int) -> None:
        """End a vCPU's sleep: it was given an interrupt, or what it waited for came."""
        domain = self._board.domain
        if self._processors.wake(vcpu) and domain:
            with domain.lock:
                domain.sleepers.woke(vcpu)

    def let_others_run(self, vcpu: int) -> None:
        """Have a vCPU end its turn."""
        self._processors.end_turn(vcpu)

    def back(self, gpa: int) -> bool:
        """Put a page of zeroed memory behind a guest frame that has none."""
        block = self.image.ram.add(gpa)
        return block is not None and self.vm.map(block)

    def online(self, vcpu: int, state: CpuState | None) -> None:
        """Have a vCPU run, from a state, or from where it stopped."""
        self._processors.online(vcpu, state)

    def offline(self, vcpu: int) -> None:
        """Have a vCPU stop between two instructions, registers kept."""
        self._processors.offline(vcpu)

    def awaits(self, vcpu: int) -> Awaits | None:
        """Tell what an engine's own local APIC, and HLT with interrupts off, made of a vCPU; None: it is not known."""
        if self.engine.traits.sees_init_sipi:
            return None
        settled = self._processors.is_settled(vcpu)
        awaits = self.vm.vcpus[vcpu].awaits()
        return awaits if settled or awaits == "sipi" else None

    def ignore_sipi(self, vcpu: int) -> None:
        """Have an engine's own local APIC ignore SIPIs to a waiting vCPU, until an INIT comes."""
        if not self.engine.traits.sees_init_sipi:
            self.vm.vcpus[vcpu].ignore_sipi()

    def typed(self, count: int) -> bytes:
        """Return up to count bytes of what was typed to the guest."""
        return self._typed.take(count) if self._typed else b""

    def nmi(self, vcpu: int) -> None:
        """Make an NMI pending in a vCPU."""
        self._processors.nmi(vcpu)

    def arm(self, vcpu: int, deadline: int | None) -> None:
        """Ask for the domain's timer to be looked at when its clock reaches deadline."""
        domain = self._board.domain
        if deadline is not None and domain is not None:
            deadline += self._clock.now() - domain.clock.now()
        self._arm(("domain", vcpu), deadline)

    def end_domain(self, reason: int, why: str | None = None, vcpu: int | None = None) -> None:
        """End the run because the domain shut down: by sched_op, if no other reason is given."""
        name = SHUTDOWN_NAMES[reason] if reason < len(SHUTDOWN_NAMES) else str(reason)
        self._halted = why is not None
        why = why or f"the guest called sched_op(shutdown, {name})"
        # libxl destroys a domain that ends for a reason it does not know, as it does one that crashed.
        self.end(_SHUTDOWN_ENDINGS.get(name, "crash"), why, vcpu=vcpu)

    def cpuid(self, vcpu: int) -> CpuidTable:
        """Return what CPUID answers on a vCPU."""
        return self._cpuid(vcpu)

    def local_apic(self, vcpu: int) -> LocalApic:
        """Make a local APIC for a vCPU of an engine that has none."""
        key = ("lapic", vcpu)
        return LocalApic(
            apic_id(vcpu),
            lambda: self._clock.now() - self._behind,
            lambda due: self._arm(key, None if due is None else due + self._behind),
        )

    # Time and threads.

    def _cpuid(self, vcpu: int) -> CpuidTable:
        base = self.engine.cpuid()
        if self.image.plan.options.platform == "xen":
            return (*with_apic_id(base, vcpu, hypervisor=True), *xen_leaves(vcpu, DOMID, self.tsc_khz))
        return bare_leaves(with_apic_id(base, vcpu, hypervisor=False), self.tsc_khz)

    def _arm(self, key: tuple[str, int], due: int | None) -> None:
        """Set or clear a timer (ns of the run's clock) and have whoever keeps that clock look at it."""
        if due is None:
            self._due.pop(key, None)
            return
        self._due[key] = due
        timer, vcpu = key
        if not self._clock.virtual:
            self._ring()
        elif timer in _TIMERS:
            self._processors.look(vcpu)
        else:  # the host's time must not tell when a turn ends
            self._processors.stir()

    def _next_timer(self) -> int | None:
        """Return when a timer of the guest's is due next."""
        return min((at for (timer, _), at in list(self._due.items()) if timer in _TIMERS), default=None)

    def _longest(self) -> int | None:
        """Return the blocks a turn may have: where instructions are the clock, it ends with the next timer."""
        if not isinstance(self._clock, InstructionClock):
            return None
        due = self._next_timer()
        return _LONGEST_TURN if due is None else min(_LONGEST_TURN, self._clock.blocks_until(due))

    def _supervise(self) -> None:
        """Wait for the end; at each timer's time kick the vCPU it belongs to."""
        timeout = self.image.plan.options.timeout
        deadline = None if timeout is None else self._started + int(timeout * 1e9)
        look = None if self.engine.traits.sees_halt else self._started + _LOOK_NS
        while not self._endings:
            self._call_at_rest()
            now = time.monotonic_ns()
            if look is not None and now >= look:
                with self._looking:
                    self._look()
                look = now + _LOOK_NS
            if deadline is not None and now >= deadline:
                self.end("deadline", f"it was still running after {timeout:g} s")
                break
            timers = {} if self._clock.virtual else dict(self._due)
            due = {key: at for key, at in timers.items() if at <= now}
            for _, vcpu in due:
                self._processors.look(vcpu)
            waits = [at for key, at in timers.items() if key not in due]
            waits += [at for at in (deadline, look) if at is not None]
            # Guests and people may name any time: one past is no wait, one past what the host can wait is cut.
            self._bell.acquire(timeout=min(max(0, min(waits) - now) / 1e9, _LONGEST_WAIT) if waits else -1)

    def _ring(self) -> None:
        """Have the supervisor look; from any thread, and from a signal handler.

        A lock can do that. SimpleQueue's get(timeout) waits for ever where its time is over when it finds nothing after
        all (CPython 3.11, _queuemodule.c), and the rest of threading may not be used in signal handlers.
        """
        with suppress(RuntimeError):  # it was rung already
            self._bell.release()

    def _call_at_rest(self) -> None:
        """Call who waits for the guest to wait, if it does."""
        call = self._at_rest
        if call and self._processors.resting:
            self._at_rest = None
            if self.pause():
                call()
            self.unpause()

    def _look(self) -> None:
        """Find who halted with interrupts off, as the engine does not say, unless exits prove that the guest lives."""
        exits = sum(list(self._counts.values()))
        quiet, self._seen = exits == self._seen, exits
        domain = self._board.domain
        if not quiet:
            return
        if domain:
            with domain.lock:
                for vcpu in range(domain.vcpus):
                    if domain.processors[vcpu].stage == "up":  # it asks the others itself, if this one is down
                        domain.processors.is_up(vcpu)
        elif all(vcpu.awaits() not in (None, "nothing") for vcpu in self.vm.vcpus):
            self.end("hang", _NOTHING_WAKES, vcpu=0)

    def _guard(self, body: Callable[[], None], vcpu: int | None) -> None:
        """Run the body of a thread, of one vCPU or of all."""
        try:
            body()
        except PvhError as error:
            self.end("engine", str(error), vcpu=vcpu)
        except BrokenPipeError:
            self.end("interrupted", "whoever read the console went away", status=_SIGPIPE_STATUS)
        except OSError as error:
            self.end("engine", f"the host failed: {error}", vcpu=vcpu)
        except Exception as error:  # noqa: BLE001 - a thread that dies silently would leave the run without an end
            self.end("engine", f"a defect stopped the processors: {error!r}", vcpu=vcpu)

    def _service(self, vcpu: Vcpu) -> None:
        """Fire the vCPU's timers whose time has come."""
        now = self._clock.now()
        for timer in (*_TIMERS, "typed", "ask"):
            key = timer, vcpu.index
            due = self._due.get(key)
            if due is not None and due <= now:
                self._due.pop(key, None)
                self._fire(vcpu, timer)

    def _fire(self, vcpu: Vcpu, timer: str) -> None:
        if timer in _TIMERS or (timer == "typed" and self._typed and self._typed.ready):
            self._board.expire(vcpu, timer)
        elif timer == "ask" and self._answer:
            self._answer(self._board.ask_to_power_off())

    def _sink(self, vcpu: Vcpu) -> Sink:
        handle, counts = self._board.handle, self._counts

        def sink(event: Exit) -> int | None:
            kind = type(event)
            counts[kind] += 1
            answer = None
            if kind in _STANDING:
                self._stand(vcpu, event)
            else:
                answer = handle(vcpu, event)
            if self._watch:
                self._watch(vcpu.index, event, answer)
            if self._endings:
                vcpu.kick()
            return answer

        return sink

    def _stand(self, vcpu: Vcpu, event: Exit) -> None:
        """Handle a processor that does not go on by itself."""
        if isinstance(event, Shutdown):
            detail = f": {event.detail}" if event.detail else ""
            self.end("triple-fault", f"vCPU {vcpu.index} triple-faulted{detail}", vcpu=vcpu.index)
        elif isinstance(event, Broken):
            self.end("engine", f"vCPU {vcpu.index}: {event.detail}", vcpu=vcpu.index)
        elif isinstance(event, Halt):
            self._halt(vcpu, event)
        elif self._on_break:
            self._processors.rest()
            self._on_break(vcpu.index)

    def _halt(self, vcpu: Vcpu, event: Halt) -> None:
        """Have a processor sleep until it gets an interrupt. With interrupts off, on Xen, it is down."""
        domain = self._board.domain
        if event.wakes or domain is None:
            self._processors.halt(vcpu.index)
            if domain:
                domain.note_runstate(vcpu.index, RUNSTATE_BLOCKED)
        else:
            domain.halt_for_good(vcpu.index)

    def _asleep(self) -> bool:
        """End a run in which every processor sleeps or is down, unless a timer is left, or somebody may type.

        Return whether to go on at once: a clock of instructions is put forward to the next timer.
        """
        due = self._next_timer()
        if due is not None and isinstance(self._clock, InstructionClock):
            self._clock.skip_to(due)
            return True
        listens = self._typed and self._typed.open and self._board.domain
        if not self._due and not listens:
            self.end("hang", _NOTHING_WAKES, vcpu=0)
        return False

    def _sleep(self) -> bool:
        """Tell whether no vCPU has anything to execute. None runs."""
        return not any(self._processors.is_ready(vcpu.index) and not vcpu.sleeps() for vcpu in self.vm.vcpus)

    def _outcome(self, *, stuck: bool) -> Outcome:
        """Gather what is known; a vCPU that is stuck in its engine cannot be asked for registers."""
        seconds = (time.monotonic_ns() - self._started) / 1e9
        ending, status, reason, culprit = self._endings[0]
        vcpu = self.vm.vcpus[culprit or 0]
        cpu = None if stuck else vcpu.state()
        return Outcome(
            ending=ending,
            status=status,
            reason=reason,
            engine=self.engine.name,
            vcpu=culprit,
            cpu=cpu,
            halted=self._halted and ending == "poweroff",
            idle=cpu is not None and bool(cpu.rflags & RFLAGS_IF) and self._sleep(),
            recent=vcpu.recent() if self.engine.traits.recent and not stuck else (),
            changed=changed_files(self.image),
            patched=self.vm.patched,
            unpatched=self.vm.unpatched,
            seconds=seconds,
            exits=tuple(sorted((kind.__name__, count) for kind, count in self._counts.items())),
        )
