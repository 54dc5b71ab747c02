"""Machine: an image, a board and an engine, run to an outcome. Owns threads, timers and the deadline."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from pvh.abi.sched import SHUTDOWN_NAMES
from pvh.board import Board
from pvh.build.builder import changed_files
from pvh.devices.lapic import LocalApic
from pvh.engines.exits import Broken, Exit, Halt, Shutdown, Sink
from pvh.errors import PvhError
from pvh.outcome import STATUS, Ending, Outcome
from pvh.xen.cpuid import apic_id, bare_leaves, with_apic_id, xen_leaves
from pvh.xen.host import DOMID

if TYPE_CHECKING:
    from pvh.build.image import Image
    from pvh.engines.engine import CpuidTable, Engine, Vcpu, Vm

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
_SIGPIPE_STATUS = 141  # what a shell reports of a program that SIGPIPE ended
_LEAVE_SECONDS = 5.0  # a vCPU that does not leave its engine this long after a kick is given up


class Machine:
    """One guest on one engine, for one run. It is the Host of the guest's Domain.

    console  takes what the guest says
    watch    is told every exit: vCPU, exit, answer
    """

    def __init__(
        self, image: Image, engine: Engine, console: Callable[[bytes], None], watch: Watch | None = None
    ) -> None:
        """Put the image on the engine. Raises EngineError when the engine or the host refuses."""
        self.image = image
        self.engine = engine
        self._tsc_khz = engine.tsc_khz  # an engine may measure it anew each time
        self._watch = watch
        self._inbox: SimpleQueue[None] = SimpleQueue()
        self._endings: list[tuple[Ending, int, str, int | None]] = []
        self._counts: Counter[str] = Counter()
        self._due: dict[tuple[str, int], int] = {}
        self._wake = [threading.Event() for _ in range(image.plan.options.vcpus)]
        self._started = time.monotonic_ns()
        self.vm: Vm = engine.open(image, tuple(self._cpuid(vcpu) for vcpu in range(image.plan.options.vcpus)))
        self._board = Board(image, engine, self.vm, self, console)

    def run(self) -> Outcome:
        """Run the guest to its end and give the engine's resources back."""
        self._started = time.monotonic_ns()
        running = self.vm.vcpus if self.engine.traits.has_lapic else self.vm.vcpus[:1]
        threads = [threading.Thread(target=self._drive, args=(vcpu,), daemon=True) for vcpu in running]
        for thread in threads:
            thread.start()
        self._supervise()
        for vcpu in running:
            vcpu.kick()
        for wake in self._wake:
            wake.set()
        for thread in threads:
            thread.join(_LEAVE_SECONDS)
        stuck = any(thread.is_alive() for thread in threads)
        self._board.flush()
        outcome = self._outcome(stuck=stuck)
        if not stuck:
            self.vm.close()
        return outcome

    def end(self, ending: Ending, reason: str, *, vcpu: int | None = None, status: int | None = None) -> None:
        """End the run; the first ending counts. From any thread, and from a signal handler."""
        self._endings.append((ending, STATUS.get(ending, 0) if status is None else status, reason, vcpu))
        self._inbox.put(None)

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

    def raise_vector(self, vcpu: int, vector: int) -> None:
        """Deliver an edge interrupt through the vCPU's local APIC."""
        self._board.raise_vector(self.vm.vcpus[vcpu], vector)
        self.wake(vcpu)

    def inject(self, vcpu: int, vector: int) -> None:
        """Interrupt a vCPU past its local APIC."""
        self._board.inject(self.vm.vcpus[vcpu], vector)
        self.wake(vcpu)

    def wake(self, vcpu: int) -> None:
        """Have a vCPU that sleeps in HLT look again."""
        self._wake[vcpu].set()

    def arm(self, vcpu: int, deadline: int | None) -> None:
        """Ask for the domain's timer to be looked at when its clock reaches deadline."""
        domain = self._board.domain
        if deadline is not None and domain is not None:
            deadline += time.monotonic_ns() - domain.clock.now()
        self._arm(("domain", vcpu), deadline)

    def end_domain(self, reason: int) -> None:
        """End the run because the guest called sched_op(shutdown)."""
        name = SHUTDOWN_NAMES[reason] if reason < len(SHUTDOWN_NAMES) else str(reason)
        # libxl destroys a domain that ends for a reason it does not know, as it does one that crashed.
        self.end(_SHUTDOWN_ENDINGS.get(name, "crash"), f"the guest called sched_op(shutdown, {name})")

    def local_apic(self, vcpu: int) -> LocalApic:
        """Make a local APIC for a vCPU of an engine that has none."""
        key = ("lapic", vcpu)
        return LocalApic(apic_id(vcpu), time.monotonic_ns, lambda due: self._arm(key, due))

    # Time and threads.

    def _cpuid(self, vcpu: int) -> CpuidTable:
        base = self.engine.cpuid()
        if self.image.plan.options.platform == "xen":
            return (*with_apic_id(base, vcpu, hypervisor=True), *xen_leaves(vcpu, DOMID, self.tsc_khz))
        return bare_leaves(with_apic_id(base, vcpu, hypervisor=False), self.tsc_khz)

    def _arm(self, key: tuple[str, int], due: int | None) -> None:
        """Set or clear a timer (ns of the host's monotonic clock) and have the supervisor look at it."""
        if due is None:
            self._due.pop(key, None)
            return
        self._due[key] = due
        self._inbox.put(None)

    def _supervise(self) -> None:
        """Wait for the end; at each timer's time kick the vCPU it belongs to."""
        timeout = self.image.plan.options.timeout
        deadline = None if timeout is None else self._started + int(timeout * 1e9)
        while not self._endings:
            now = time.monotonic_ns()
            if deadline is not None and now >= deadline:
                self.end("deadline", f"it was still running after {timeout:g} s")
                break
            due = {key: at for key, at in list(self._due.items()) if at <= now}
            for _, vcpu in due:
                self.vm.vcpus[vcpu].kick()
                self._wake[vcpu].set()
            waits = [at for key, at in list(self._due.items()) if key not in due]
            waits += [deadline] if deadline is not None else []
            try:
                # Guests and people may name any time: one past is no wait, one past what the host can wait is cut.
                self._inbox.get(timeout=min(max(0, min(waits) - now) / 1e9, _LONGEST_WAIT) if waits else None)
            except Empty:
                continue

    def _drive(self, vcpu: Vcpu) -> None:
        """Run one vCPU until the run ends: the body of its thread."""
        sink = self._sink(vcpu)
        try:
            while not self._endings:
                self._service(vcpu)
                vcpu.run(sink)
        except PvhError as error:
            self.end("engine", str(error), vcpu=vcpu.index)
        except BrokenPipeError:
            self.end("interrupted", "whoever read the console went away", status=_SIGPIPE_STATUS)
        except Exception as error:  # noqa: BLE001 - a thread that dies silently would leave the run without an end
            self.end("engine", f"a defect or the host stopped vCPU {vcpu.index}: {error!r}", vcpu=vcpu.index)

    def _service(self, vcpu: Vcpu) -> None:
        """Fire the vCPU's timers whose time has come."""
        now = time.monotonic_ns()
        for key in ("domain", vcpu.index), ("lapic", vcpu.index):
            due = self._due.get(key)
            if due is not None and due <= now:
                self._due.pop(key, None)
                self._board.expire(vcpu, key[0])

    def _sink(self, vcpu: Vcpu) -> Sink:
        handle, watch, counts = self._board.handle, self._watch, self._counts

        def sink(event: Exit) -> int | None:
            counts[type(event).__name__] += 1
            answer = None
            if isinstance(event, (Halt, Shutdown, Broken)):
                self._stand(vcpu, event)
            else:
                answer = handle(vcpu, event)
            if watch:
                watch(vcpu.index, event, answer)
            if self._endings:
                vcpu.kick()
            return answer

        return sink

    def _stand(self, vcpu: Vcpu, event: Halt | Shutdown | Broken) -> None:
        """Handle a processor that does not go on by itself."""
        if isinstance(event, Shutdown):
            detail = f": {event.detail}" if event.detail else ""
            self.end("triple-fault", f"vCPU {vcpu.index} triple-faulted{detail}", vcpu=vcpu.index)
        elif isinstance(event, Broken):
            self.end("engine", f"vCPU {vcpu.index}: {event.detail}", vcpu=vcpu.index)
        else:
            self._halt(vcpu, event)

    def _halt(self, vcpu: Vcpu, event: Halt) -> None:
        """Sleep until an interrupt is raised. A halt that nothing can end is a hang."""
        index = vcpu.index
        wake = self._wake[index]
        if not event.wakes:
            self._halt_for_good(index)
            return
        while not self._endings and not wake.is_set():
            if not any(owner == index for _, owner in list(self._due)):
                self.end("hang", f"vCPU {index} halted, and no timer or event is left to wake it", vcpu=index)
                return
            wake.wait()
            wake.clear()
            self._service(vcpu)
        wake.clear()

    def _halt_for_good(self, index: int) -> None:
        """End the run: a processor that halts with interrupts off never goes on.

        Xen takes such a vCPU down, and powers the domain off when no other is up (xen/arch/x86/hvm/hvm.c, hvm_hlt).
        """
        halted = f"vCPU {index} halted with interrupts off"
        if self._board.domain is None:
            self.end("hang", halted, vcpu=index)
        else:
            self.end("poweroff", f"{halted}, and Xen powers a domain off when its last vCPU does", vcpu=index)

    def _outcome(self, *, stuck: bool) -> Outcome:
        """Gather what is known; a vCPU that is stuck in its engine cannot be asked for registers."""
        seconds = (time.monotonic_ns() - self._started) / 1e9
        ending, status, reason, culprit = self._endings[0]
        vcpu = self.vm.vcpus[culprit or 0]
        return Outcome(
            ending=ending,
            status=status,
            reason=reason,
            engine=self.engine.name,
            vcpu=culprit,
            cpu=None if stuck else vcpu.state(),
            recent=vcpu.recent() if self.engine.traits.recent and not stuck else (),
            changed=changed_files(self.image),
            patched=self.vm.patched,
            seconds=seconds,
            exits=tuple(sorted(self._counts.items())),
        )
