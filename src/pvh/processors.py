"""Processors: which vCPU runs when, and on which thread.

An engine whose vCPUs run in parallel gets a thread for each. The emulator's take turns on one thread: so LOCKed
instructions are atomic, and no vCPU runs while the host changes memory.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from pvh.hints import TYPE_CHECKING, Any
from pvh.kept import put_back

if TYPE_CHECKING:
    from pvh.build.cpu_state import CpuState
    from pvh.engines.engine import Vcpu, Vm
    from pvh.engines.exits import Sink

_SLICE_BLOCKS = 20_000  # basic blocks of a turn while others wait: about 0.2 ms
_KICK_AGAIN = 0.001  # seconds
_LOOK_AGAIN = 0.1  # seconds until a thread at rest notices the end of the run
_LEAVE_SECONDS = 5.0  # a vCPU that does not leave its engine this long after a kick is given up


class Turn:
    """What is wanted of one vCPU; whoever changes it makes the vCPU's thread look again.

    up      it executes, or sleeps
    halted  it sleeps, in HLT (engines that report it) or because it asked Xen for that
    dozes   an engine that gives interrupts itself was told of that sleep; it may have ended it since
    orders  what is to be done to it between two runs, in turn; each is here until it is done
    nmi     an NMI is to be made pending
    """

    __slots__ = ("dozes", "halted", "nmi", "orders", "sink", "up", "vcpu")
    KEPT = ("up", "halted", "dozes", "nmi")

    def __init__(self, vcpu: Vcpu, sink: Sink, *, up: bool) -> None:
        self.vcpu, self.sink, self.up = vcpu, sink, up
        self.halted = self.dozes = self.nmi = False
        self.orders: deque[Callable[[], None]] = deque()

    @property
    def ready(self) -> bool:
        """Whether it has something to execute."""
        return self.up and not self.halted

    def apply(self, state: dict[str, Any]) -> None:
        """Be as kept; what was still to be done is not to be done any more."""
        self.orders.clear()
        put_back(self, state)

    def start(self, state: CpuState) -> None:
        """Have it execute from a state."""
        self.halted = False
        self.vcpu.load(state)

    def doze(self) -> None:
        """Have an engine that gives interrupts itself begin or end the vCPU's sleep, as was asked for."""
        if self.halted != self.dozes:
            self.dozes = self.halted
            if self.dozes:
                self.vcpu.doze()
            else:
                self.vcpu.rouse()

    def prepare(self) -> None:
        """Do what was asked for between two runs; only the thread that runs the vCPU may."""
        while self.orders:
            self.orders[0]()
            self.orders.popleft()
        if self.nmi:
            self.nmi = self.halted = False
            self.vcpu.nmi()


class Processors:
    """The vCPUs of one machine.

    ended    tells whether the run has its ending
    service  fires the timers of a vCPU whose time has come; called by the thread that runs the vCPU
    longest  gives the basic blocks that the next turn may have, None for no limit
    """

    KEPT = ("_turns",)

    def __init__(
        self,
        vm: Vm,
        sinks: list[Sink],
        *,
        parallel: bool,
        ended: Callable[[], bool],
        service: Callable[[Vcpu], None],
        longest: Callable[[], int | None],
    ) -> None:
        self._turns = [Turn(vcpu, sink, up=vcpu.index == 0) for vcpu, sink in zip(vm.vcpus, sinks, strict=True)]
        self._parallel = parallel
        self._ended = ended
        self._service = service
        self._longest = longest
        self._meter: Callable[[Vcpu], None] | None = None
        self._look = threading.Event()
        self._current: Turn | None = None
        self._threads: list[threading.Thread] = []
        self._rest = threading.Condition()
        self._at_rest: set[int] = set()
        self._pausing = False

    def measure(self, meter: Callable[[Vcpu], None]) -> None:
        """Have meter told of a vCPU after each of its turns, where vCPUs take turns; all turns are short then."""
        self._meter = meter

    def start(self, guard: Callable[[Callable[[], None], int | None], None], asleep: Callable[[], bool]) -> None:
        """Start the threads.

        guard   runs a thread's body (of a vCPU, or of all), and ends the run when it fails
        asleep  is called when no vCPU has anything to execute: it ends a run that nothing can wake, and tells whether
                to go on at once
        """
        bodies: list[tuple[Callable[[], None], int | None]]
        if self._parallel:
            bodies = [(lambda turn=turn: self._drive(turn), turn.vcpu.index) for turn in self._turns]  # type: ignore[misc]
        else:
            bodies = [(lambda: self._take_turns(asleep), None)]
        self._threads = [threading.Thread(target=guard, args=body, daemon=True) for body in bodies]
        for thread in self._threads:
            thread.start()

    def stop(self) -> bool:
        """Have every vCPU leave its engine, the run being ended; return whether all did."""
        for turn in self._turns:
            turn.vcpu.kick()
        self._look.set()
        with self._rest:
            self._rest.notify_all()
        for thread in self._threads:
            thread.join(_LEAVE_SECONDS)
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def resting(self) -> bool:
        """Whether vCPUs stop, or have stopped, until unpause()."""
        return self._pausing

    def rest(self) -> None:
        """Have all vCPUs stop, as pause() does, but do not wait for it. From any thread, also from a sink."""
        self._pausing = True
        for turn in self._turns:
            turn.vcpu.kick()

    def pause(self) -> bool:
        """Have all vCPUs stop between two instructions, until unpause(); False when the run ends instead.

        From any thread but theirs. Then vCPUs may be looked at and changed from there.
        """
        with self._rest:
            self._pausing = True
            while len(self._at_rest) < len(self._threads):
                if self._ended() or not any(thread.is_alive() for thread in self._threads):
                    self._pausing = False
                    return False
                for turn in self._turns:
                    turn.vcpu.kick()
                self._look.set()
                self._rest.wait(_KICK_AGAIN)
        for turn in self._turns:
            turn.prepare()
        return True

    def unpause(self) -> None:
        """Go on."""
        with self._rest:
            self._pausing = False
            self._rest.notify_all()

    def _pause(self, thread: int) -> None:
        """Rest while that is wanted."""
        if not self._pausing:
            return
        with self._rest:
            self._at_rest.add(thread)
            self._rest.notify_all()
            while self.resting and not self._ended():
                self._rest.wait(_LOOK_AGAIN)
            self._at_rest.discard(thread)

    def step(self, vcpu: int) -> None:
        """Have one vCPU, of which none runs, execute one instruction, if it has any to execute."""
        turn = self._turns[vcpu]
        self._service(turn.vcpu)
        turn.prepare()
        if turn.ready:
            turn.vcpu.step(turn.sink)

    def is_halted(self, vcpu: int) -> bool:
        """Whether a vCPU sleeps, for all we know."""
        return self._turns[vcpu].halted

    def is_ready(self, vcpu: int) -> bool:
        """Whether a vCPU has something to execute, for all we know."""
        return self._turns[vcpu].ready

    def online(self, vcpu: int, state: CpuState | None) -> None:
        """Have a vCPU run, from a state, or from where it stopped."""
        turn = self._turns[vcpu]
        turn.orders.append(partial(turn.start, state) if state else turn.vcpu.resume)
        turn.up = True
        self.look(vcpu)

    def is_settled(self, vcpu: int) -> bool:
        """Whether the last online() or offline() of a vCPU has come about."""
        return not self._turns[vcpu].orders

    def offline(self, vcpu: int) -> None:
        """Have a vCPU stop between two instructions, registers kept."""
        turn = self._turns[vcpu]
        turn.orders.append(turn.vcpu.park)
        turn.up = False
        self.look(vcpu)

    def nmi(self, vcpu: int) -> None:
        """Make an NMI pending in a vCPU."""
        self._turns[vcpu].nmi = True
        self.look(vcpu)

    def halt(self, vcpu: int) -> None:
        """Have a vCPU sleep until wake(), or until the engine gives it an interrupt; from its sink."""
        turn = self._turns[vcpu]
        turn.halted, turn.dozes = True, False
        turn.vcpu.kick()

    def wake(self, vcpu: int) -> bool:
        """End a vCPU's sleep; return whether it slept, for all we know: its engine may have woken it."""
        turn = self._turns[vcpu]
        slept, turn.halted = turn.halted, False
        if slept and (self._parallel or self._current is not turn):
            self.look(vcpu)  # whose turn it is runs without end while no other has anything to execute
        self._look.set()
        return slept

    def end_turn(self, vcpu: int) -> None:
        """Have a vCPU let the others run, where vCPUs take turns; from its sink."""
        if not self._parallel:
            self._turns[vcpu].vcpu.kick()

    def look(self, vcpu: int) -> None:
        """Make the thread that runs a vCPU look at what is wanted of it, and at its timers."""
        running = self._turns[vcpu] if self._parallel else self._current
        if running:
            running.vcpu.kick()
        self._look.set()

    def stir(self) -> None:
        """Have the thread that runs all vCPUs go on if they all sleep; the turn of one that runs is not cut."""
        self._look.set()

    def _drive(self, turn: Turn) -> None:
        """Run one vCPU, which waits inside the engine while it is down."""
        while not self._ended():
            self._service(turn.vcpu)
            turn.prepare()
            self._pause(turn.vcpu.index)
            turn.doze()
            turn.vcpu.run(turn.sink)

    def _take_turns(self, asleep: Callable[[], bool]) -> None:
        """Run all vCPUs in slices, on this thread."""
        while not self._ended():
            self._look.clear()
            self._pause(0)
            ran = [turn for turn in self._turns if self._take(turn)]
            if not ran and not self._ended() and not self._look.is_set() and not asleep():
                self._look.wait()

    def _take(self, turn: Turn) -> bool:
        """Let one vCPU run for a while if it can; return whether it did."""
        self._current = turn  # before _service(), so that what look() is called for behind that ends the run
        self._service(turn.vcpu)
        turn.prepare()
        if not turn.ready or self._ended():
            return False
        others = any(other.ready for other in self._turns if other is not turn)
        longest = self._longest()
        if others or self._meter:
            longest = min(_SLICE_BLOCKS, longest or _SLICE_BLOCKS)
        turn.vcpu.run(turn.sink, longest)
        if self._meter:
            self._meter(turn.vcpu)
        return True
