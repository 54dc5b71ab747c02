"""A running guest as a program has it: `pvh.boot` starts one; `with` ends it."""

from __future__ import annotations

import os
import threading
import time
import weakref
from contextlib import contextmanager, nullcontext, suppress

from pvh import given
from pvh import snapshot as snapshots
from pvh.build.builder import build
from pvh.build.image import Image
from pvh.build.linear import LinearFault, LinearMemory
from pvh.console import Console
from pvh.engines.select import choose
from pvh.errors import PvhError, Timeout, UsageError
from pvh.events import Audience, Event
from pvh.guest_ended import GuestEnded
from pvh.hints import TYPE_CHECKING
from pvh.kernel.read import read_kernel
from pvh.kernel.record import Kernel
from pvh.machine import Machine
from pvh.outcome import STATUS, Outcome
from pvh.plan.options import BootOptions
from pvh.plan.planner import plan
from pvh.plan.record import Plan
from pvh.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from types import TracebackType
    from typing import Self

    from pvh.build.cpu_state import CpuState
    from pvh.devices.typed import Typed
    from pvh.engines.engine import Vcpu
    from pvh.engines.exits import Exit
    from pvh.machine import Watch
    from pvh.plan.options import EngineName
    from pvh.trace import Trace


class Guest:
    """A guest that runs in a thread of its own, until it ends or stop() ends it. Every method is for any thread.

    console  what it says, and what is typed to it

    Leaving a `with` block stops it and gives its memory back. A core that BootOptions asks for is written at its end;
    one that cannot be written is a UsageError of the next wait(), stop() or close().

    >>> with pvh.boot(pvh.demo_path()) as guest:
    ...     guest.wait(timeout=10).ending
    'poweroff'
    >>> guest.outcome.status
    0
    """

    def __init__(
        self,
        make: Callable[[Console, Watch, Typed], Machine],
        *,
        paused: bool = False,
        trace: Trace | None = None,
        core: str | None = None,
    ) -> None:
        """Start the machine that make() returns for a console, a watch, and what is typed. Programs call boot().

        trace is closed with the guest; core is a path.
        """
        self.console = Console()
        self._audience = Audience()
        self._still = threading.RLock()  # held by who wants the guest's processors or memory to stay as they are
        self._outcome: Outcome | None = None
        self._paused = paused
        self._closed = False
        self._trace = trace
        self._core = core
        self._clones: list[weakref.ref[Guest]] = []
        self._unwritten: PvhError | None = None
        self._machine = make(self.console, self.hear, self.console.begin())
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(PvhError) if error else nullcontext():  # the first error counts
            self.close()

    def __repr__(self) -> str:
        how = self._outcome.ending if self._outcome else "paused" if self._paused else "running"
        return f"<Guest {self._machine.image.plan.kernel.path} on {self._machine.engine.name}: {how}>"

    # How it goes.

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it has not."""
        return self._outcome

    def wait(self, timeout: float | None = None) -> Outcome:
        """Wait for the guest to end, timeout seconds of the host's at most, and return how it did.

        Nothing more is typed to it: see Console.close(). Raises Timeout.

        >>> with pvh.boot(pvh.demo_path()) as guest:
        ...     outcome = guest.wait(timeout=10)
        >>> outcome.ending, outcome.status
        ('poweroff', 0)
        """
        __tracebackhide__ = True  # pytest shows who waited, not this
        limit = given.seconds("timeout", timeout)
        self.console.close()
        deadline = None if limit is None else time.monotonic() + limit
        while (outcome := self._outcome) is None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            self._thread.join(left)
            if left == 0 and self._outcome is None:
                raise Timeout(f"the guest has not ended in {timeout:g} s", self.console.text[-400:])
            with self._still:  # another thread may be about to have it run again
                pass
        self._complain()
        return outcome

    def stop(self) -> Outcome:
        """End the guest, if it has not ended, and return how it did: `interrupted`, if it is this that ended it.

        >>> with pvh.boot(pvh.demo_path(), paused=True) as guest:
        ...     guest.stop().ending
        'interrupted'
        """
        outcome = self._stop()
        self._complain()
        return outcome

    def close(self) -> None:
        """Stop the guest and give its memory back. Only `outcome` and the console are of use then.

        >>> guest = pvh.boot(pvh.demo_path(), paused=True)
        >>> guest.close()
        >>> guest.outcome.ending
        'interrupted'
        """
        self._stop()
        with self._still:
            if not self._closed:
                self._closed = True
                self._machine.vm.close()
                self._machine.image.ram.close()
                self._machine.engine.close()
                if self._trace:
                    self._trace.close()
        self._complain()

    def pause(self) -> None:
        """Have all vCPUs stop between two instructions. Time goes on for the guest. Raises GuestEnded.

        >>> with pvh.boot(pvh.demo_path(), paused=True) as guest:
        ...     guest.pause()  # it is paused already: nothing happens
        ...     guest.outcome is None
        True
        """
        with self._still:
            if not self._paused or self._outcome is not None:
                self._halt()
                self._paused = True

    def resume(self) -> None:
        """Have a paused guest go on.

        >>> with pvh.boot(pvh.demo_path(), paused=True) as guest:
        ...     guest.resume()
        ...     guest.wait(timeout=10).ending
        'poweroff'
        """
        with self._still:
            if self._paused:
                self._paused = False
                self._machine.unpause()

    def step(self, vcpu: int = 0) -> CpuState:
        """Have one vCPU of a paused guest execute one instruction, and return its registers behind that.

        An interrupt that waits is taken first. Raises UsageError if the guest is not paused or its engine cannot, and
        GuestEnded.

        >>> with pvh.boot(pvh.demo_path(), pvh.BootOptions(engine="emulator"), paused=True) as guest:
        ...     before = guest.registers().rip
        ...     after = guest.step().rip
        >>> before != after
        True
        """
        with self._at_rest():
            if self._outcome is not None:
                raise self._ended()
            if not self._paused:
                raise UsageError("a guest that runs cannot be stepped", hint="pause() it first")
            processor = self._vcpu(vcpu)
            self._machine.step(vcpu)
            return processor.state()

    def events(self) -> Iterator[Event]:
        """Give every exit from now on, in order, until the guest ends. It does not wait for whoever reads them.

        A million wait at most; of more the oldest are lost. Memory is all it costs.

        >>> with pvh.boot(pvh.demo_path(), paused=True) as guest:
        ...     events = guest.events()
        ...     guest.resume()
        ...     kinds = {type(event.exit).__name__ for event in events}
        >>> "Hypercall" in kinds
        True
        """
        return self._audience.listen()

    # What is in it. A guest that runs is paused for as long as that takes.

    def registers(self, vcpu: int = 0) -> CpuState:
        """Return the registers of a vCPU; of a guest that has ended, as they were at its end.

        >>> with pvh.boot(pvh.demo_path(), paused=True) as guest:
        ...     guest.registers().rip == guest.plan.entry
        True
        """
        with self._at_rest():
            return self._vcpu(vcpu).state()

    def read(self, address: int, size: int, *, linear: bool = False, vcpu: int = 0) -> bytes:
        """Return size bytes of guest memory at a guest-physical address.

        linear  the address is a linear one of that vCPU, which may read it at privilege level 0
        Raises UsageError where there is no memory.

        >>> with pvh.boot(pvh.demo_path(), paused=True) as guest:
        ...     guest.read(guest.plan.start_info.paddr, 4).hex()
        '78c56e33'
        """
        given.kind("address", address, int, "a whole number")
        given.kind("size", size, int, "a number of bytes")
        with self._at_rest():
            if size < 0:
                raise _no_memory(address, size)
            data = self._memory(vcpu, address, size) if linear else self._machine.image.ram.read(address, size)
        if data is None:
            raise _no_memory(address, size)
        return data

    def write(self, address: int, data: bytes, *, linear: bool = False, vcpu: int = 0) -> None:
        """Store bytes in guest memory at a guest-physical address, or a linear one of a vCPU. Code may be among them.

        Raises UsageError where there is no memory, or where that vCPU could not write; then nothing is stored, unless
        the linear range has several pages.

        >>> with pvh.boot(pvh.demo_path(), pvh.BootOptions(cmdline="-"), paused=True) as guest:
        ...     guest.write(guest.plan.start_info.cmdline_paddr, b"+")
        ...     guest.resume()
        ...     guest.console.expect('line: "+"', timeout=10).text
        b'line: "+"'
        """
        given.kind("address", address, int, "a whole number")
        given.kind("data", data, (bytes, bytearray, memoryview), "bytes")
        data = bytes(data)
        with self._at_rest():
            machine = self._machine
            if linear:
                try:
                    self._linear(vcpu, address, len(data)).write(address, data)
                except LinearFault as fault:
                    raise _no_memory(fault.address, 1) from None
            elif not machine.image.ram.write(address, data):
                raise _no_memory(address, len(data))
            machine.vm.written(address, len(data))

    def explain(self) -> list[str]:
        """Return lines for a person: where vCPU 0, or the one that ended the guest, stands, its registers and its code.

        The last instructions are among them on the emulator, which knows. Addresses are linear unless a line says
        otherwise. Raises UsageError once the guest is closed.

        >>> with pvh.boot(pvh.demo_path(), paused=True) as guest:
        ...     guest.explain()[1]
        'in 32-bit protected mode, paging off, CPL 0, interrupts off'
        """
        from pvh.diagnosis import where  # its disassembler is only for this

        with self._at_rest():
            machine, outcome = self._machine, self._outcome
            if outcome is None:
                vcpu = machine.vm.vcpus[0]
                recent = vcpu.recent() if machine.engine.traits.recent else ()
                outcome = Outcome("interrupted", 0, "it runs", machine.engine.name, cpu=vcpu.state(), recent=recent)
            return where(outcome, machine.image)

    @property
    def engine(self) -> str:
        """What executes it: `kvm` or `emulator`."""
        return self._machine.engine.name

    @property
    def traced(self) -> bool:
        """Whether its exits are written to the file that its options name: not those of a guest that was resumed."""
        return self._trace is not None

    @property
    def plan(self) -> Plan:
        """What it was built from."""
        return self._machine.image.plan

    # Moments of it.

    def snapshot(self) -> Snapshot:
        """Return a snapshot: this guest, and others, can go on from here. See Snapshot.

        Raises GuestEnded, and EngineError where the engine has none or the host has no room.

        >>> with pvh.boot(pvh.demo_path(), pvh.BootOptions(engine="emulator"), paused=True) as guest:
        ...     start = guest.snapshot()
        ...     guest.resume()
        ...     first = guest.wait(10), guest.console.text
        ...     guest.restore(start)
        ...     again = guest.wait(10), guest.console.text
        >>> first[1] == again[1]
        True
        """
        with self._at_rest():
            if self._outcome is not None:
                raise GuestEnded("a guest that has ended has nothing to go on with", self._outcome)
            return snapshots.take(self._machine)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of this guest, or of one with the same plan. The console begins anew.

        A paused guest stays paused; one that has ended runs again. Raises EngineError; UsageError for a snapshot of
        another guest.

        >>> with pvh.boot(pvh.demo_path(), pvh.BootOptions(engine="emulator"), paused=True) as guest:
        ...     start = guest.snapshot()
        ...     guest.step() == guest.registers()
        ...     guest.restore(start)
        ...     guest.registers().rip == guest.plan.entry
        True
        True
        """
        given.kind("snapshot", snapshot, Snapshot, "a Snapshot")
        _fits(snapshot, self.engine, self.plan)
        with self._at_rest():
            ended = self._outcome is not None
            typed = self.console.begin()
            snapshots.restore(self._machine, snapshot)
            self._outcome = None
            self._audience.set_over(over=False)
            self._machine.listen(typed)
            if ended:
                self._paused = False
                self._machine.unpause()
                self._start()

    def clone(self, *, paused: bool = False) -> Guest:
        """Return another guest that goes on from where this one is, on pages that both share until one writes them.

        >>> with pvh.boot(pvh.demo_path(), pvh.BootOptions(engine="emulator"), paused=True) as guest:
        ...     with guest.clone() as other:
        ...         other.wait(10).ending
        'poweroff'
        """
        other = resume(self.snapshot(), paused=paused)
        self._clones.append(weakref.ref(other, self._clones.remove))
        return other

    @property
    def clones(self) -> tuple[Guest, ...]:
        """Those that clone() made of it, and theirs, as far as somebody still has them, or they run.

        >>> with pvh.boot(pvh.demo_path(), pvh.BootOptions(engine="emulator"), paused=True) as guest:
        ...     with guest.clone() as other:
        ...         guest.clones == (other,)
        True
        """
        made = [other for ref in self._clones if (other := ref())]
        return tuple(each for other in made for each in (other, *other.clones))

    def _start(self) -> None:
        if self._paused:
            self._machine.rest()
        self._machine.begun.clear()
        self._thread = threading.Thread(target=self._run, name="pvh guest", daemon=True)
        self._thread.start()
        self._machine.begun.wait()  # until then there is nothing to pause
        if self._paused:
            self._machine.pause()

    def _stop(self) -> Outcome:
        with self._still:
            if self._outcome is None:
                self._machine.end("interrupted", "it was stopped")
                self._machine.unpause()
                self._thread.join()
            assert self._outcome is not None
            return self._outcome

    def _run(self) -> None:
        try:
            outcome = self._machine.run(close=False)
            if self._core:
                self._keep_core(self._core, outcome)
        except Exception as error:  # noqa: BLE001 - who waits for the end would wait for ever
            reason = f"a defect or the host stopped the run: {error!r}"
            outcome = Outcome("engine", STATUS["engine"], reason, self._machine.engine.name)
        self.console.end(outcome)
        self._outcome = outcome
        self._audience.set_over(over=True)

    def _keep_core(self, path: str, outcome: Outcome) -> None:
        from pvh.core import write_core  # only when asked for

        try:
            write_core(path, self._machine.image.ram, outcome)
        except PvhError as error:
            self._unwritten = error

    def _complain(self) -> None:
        """Tell, once, that the core could not be written."""
        unwritten, self._unwritten = self._unwritten, None
        if unwritten:
            raise unwritten

    def hear(self, vcpu: int, event: Exit, answer: int | None) -> None:
        """Take an exit. For the machine."""
        if self._trace:
            self._trace(vcpu, event, answer)
        self._audience.hear(vcpu, event, answer)

    def _halt(self) -> None:
        rests = False
        try:
            rests = self._outcome is None and self._machine.pause()
        finally:  # also of a Ctrl-C
            if not rests:
                self._machine.unpause()
        if not rests:
            self._thread.join()
            raise self._ended()

    def _ended(self) -> GuestEnded:
        assert self._outcome is not None
        return GuestEnded("the guest has ended", self._outcome, self.console.text[-400:])

    @contextmanager
    def _at_rest(self) -> Generator[None]:
        """Have no vCPU run, and nobody else pause, resume or close the guest."""
        with self._still:
            if self._closed:
                raise UsageError("this guest was closed: its memory and registers are gone")
            mine = self._outcome is None and not self._paused
            try:
                if mine and not self._machine.pause():
                    self._thread.join()
                yield
            finally:
                if mine:
                    self._machine.unpause()

    def _memory(self, vcpu: int, address: int, size: int) -> bytes | None:
        try:
            return self._linear(vcpu, address, size).read(address, size)
        except LinearFault:
            return None

    def _linear(self, vcpu: int, address: int, size: int) -> LinearMemory:
        """Return memory as a vCPU sees it. Raises UsageError for addresses that it cannot even form."""
        state = self._vcpu(vcpu).state()
        if not 0 <= address <= address + size <= 1 << (64 if state.bits == 64 else 32):
            raise _no_memory(address, size)
        return LinearMemory(self._machine.image.ram, state)

    def _vcpu(self, vcpu: int) -> Vcpu:
        vcpus = self._machine.vm.vcpus
        given.number("vcpu", vcpu, 0, len(vcpus) - 1)
        return vcpus[vcpu]


def _no_memory(address: int, size: int) -> PvhError:
    return UsageError("there is no guest memory to be had", found=f"{size} bytes at {address:#x}")


def boot(
    kernel: str | os.PathLike[str] | Kernel | Plan | Image, options: BootOptions | None = None, *, paused: bool = False
) -> Guest:
    """Start a guest of a kernel: of the file at a path, or of what read_kernel, plan or build made of one.

    options  for a path and a Kernel: a Plan and an Image have theirs
    paused   let it execute nothing before resume()

    Raises what these do; NoEngine; EngineError; UsageError for options with what has its own.

    >>> with pvh.boot(pvh.demo_path(), pvh.BootOptions(memory=64 << 20, cmdline="hi")) as guest:
    ...     match = guest.console.expect("hi", timeout=10)
    """
    if isinstance(kernel, (Plan, Image)) and options is not None:
        raise UsageError("a plan and an image have their options already", hint="give them to plan()")
    given.kind("a kernel", kernel, (str, os.PathLike, Kernel, Plan, Image), "a path, Kernel, Plan or Image")
    made = kernel.plan if isinstance(kernel, Image) else _planned(kernel, options or BootOptions())
    engine = choose(made.options.engine, _ignore, made.options.clock)

    def make(console: Console, hear: Watch, typed: Typed) -> Machine:
        image = kernel if isinstance(kernel, Image) else build(made)
        try:
            return Machine(image, engine, console.hear, hear, typed)
        except PvhError:
            image.ram.close()
            raise

    path, core = made.options.trace, made.options.core
    if path is None:
        return Guest(make, paused=paused, core=core)
    from pvh.trace import Trace  # json costs milliseconds

    return Guest(make, paused=paused, trace=Trace(path, engine.clock.now), core=core)


def resume(snapshot: Snapshot, *, paused: bool = False) -> Guest:
    """Return a new guest that goes on from a snapshot, and shares its pages until it writes them.

    Raises NoEngine, EngineError.

    >>> with pvh.boot(pvh.demo_path(), pvh.BootOptions(engine="emulator"), paused=True) as guest:
    ...     moment = guest.snapshot()
    >>> with pvh.resume(moment) as first, pvh.resume(moment) as second:
    ...     [guest.wait(10).ending for guest in (first, second)]
    ['poweroff', 'poweroff']
    """
    given.kind("snapshot", snapshot, Snapshot, "a Snapshot")
    name: EngineName = "kvm" if snapshot.engine == "kvm" else "emulator"
    engine = choose(name, _ignore, snapshot.plan.options.clock)

    def make(console: Console, hear: Watch, typed: Typed) -> Machine:
        return snapshots.resume(snapshot, engine, console.hear, hear, typed)

    return Guest(make, paused=paused)


def _planned(kernel: str | os.PathLike[str] | Kernel | Plan, options: BootOptions) -> Plan:
    if isinstance(kernel, Plan):
        return kernel
    return plan(kernel if isinstance(kernel, Kernel) else read_kernel(kernel), options)


def _fits(snapshot: Snapshot, engine: str, plan: Plan) -> None:
    """Raise UsageError unless a guest of a plan on an engine can go back to a snapshot."""
    hint = "pvh.resume() makes a guest of it"
    if snapshot.engine != engine:
        raise UsageError("this snapshot is of another engine", found=snapshot.engine, wanted=engine, hint=hint)
    if snapshot.plan is not plan and _shape(snapshot.plan) != _shape(plan):
        raise UsageError("this is a snapshot of another guest", path=snapshot.plan.kernel.path, hint=hint)


def _shape(plan: Plan) -> tuple[object, ...]:
    """Return what two plans share whose guests differ in nothing but time."""
    options = plan.options
    return plan.kernel, plan.ranges, plan.memory_map, plan.backed, options.vcpus, options.platform, options.clock


def _ignore(_: str) -> None:
    """Not say which engine `auto` took: repr() and the outcome tell."""
