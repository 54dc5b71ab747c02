"""The `scripted` engine: no guest code runs; a list of exits is replayed and what they were answered is kept.

For tests of whatever sits above the seam, without a kernel, KVM or an emulator:

    engine = ScriptedEngine([PortOut(0xE9, 1, ord("x")), MsrWrite(0x40000000, 0x5000), PortOut(0xF4, 1, 0)])
    outcome = Machine(image, engine, console.extend).run()
    assert engine.vms[0].replies[1].answer == 0
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from pvh.build.cpu_state import CpuState
from pvh.build.image import Image
from pvh.build.ram import Block, GuestRam
from pvh.clock import Clock, HostClock
from pvh.engines.engine import CpuidEntry, CpuidTable, Traits
from pvh.engines.exits import Broken, Exit, Hypercall, Shutdown, Sink
from pvh.errors import EngineError
from pvh.record import dataclass, replace

Step = Exit | CpuState | Callable[[GuestRam], object]
"""An exit to report; registers to have from here on; or something to do to guest memory, as the guest's code would."""

_TRAITS = Traits(has_lapic=True, sees_halt=False, sees_init_sipi=False, exact_stop=True, recent=False)
_CPUID = (
    CpuidEntry(0, None, 1, 0x72637350, 0x64657470, 0x746C6969),
    CpuidEntry(1, None, 0, 0, 0, 1 << 0 | 1 << 9),  # FPU, APIC
    CpuidEntry(0x80000000, None, 0x80000001, 0, 0, 0),
    CpuidEntry(0x80000001, None, 0, 0, 0, 1 << 29),  # long mode
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What one exit was answered."""

    vcpu: int
    event: Exit
    answer: int | None


class ScriptedVcpu:
    """A processor that reports its script. One without a script, and any but the first at its end, waits as in HLT."""

    def __init__(self, index: int, vm: ScriptedVm, steps: Sequence[Step]) -> None:
        """Start at the script's beginning, in reset."""
        self.index = index
        self._vm = vm
        self._steps = iter(steps)
        self._waits = not steps
        self._state = CpuState()
        self._kicked = threading.Event()
        self._dozes = False
        self._ended = False

    @property
    def executed(self) -> None:
        """Nothing: blocks are not counted here."""
        return

    def load(self, state: CpuState) -> None:
        """Set the registers that state() returns."""
        self._state = state

    def state(self) -> CpuState:
        """Return the registers last loaded or scripted; RAX has the answer of the last hypercall."""
        return self._state

    def step(self, sink: Sink) -> None:  # noqa: ARG002 - nothing is executed
        """Refuse. Raises EngineError."""
        raise EngineError("a script has no single steps")

    def assign(self, gprs: tuple[int, ...], rip: int, rflags: int) -> None:
        """Change the general registers, RIP and RFLAGS."""
        self._state = replace(self._state, gprs=gprs, rip=rip, rflags=rflags)

    def park(self) -> None:
        """Wait for nothing: scripts do not start processors."""

    def resume(self) -> None:
        """Go on with the script, which never stopped."""

    def doze(self) -> None:
        """Report nothing more until rouse(): a script has no interrupts."""
        self._dozes = True

    def rouse(self) -> None:
        """Go on with the script."""
        self._dozes = False

    def awaits(self) -> None:
        """Tell nothing: there is no local APIC here."""
        return

    def sleeps(self) -> bool:
        """Tell no: its HLT is an exit."""
        return False

    def ignore_sipi(self) -> None:
        """Do nothing: no SIPI comes here."""

    def nmi(self) -> None:
        """Take an NMI, of which a script knows nothing."""

    def run(self, sink: Sink, blocks: int | None = None) -> None:  # noqa: ARG002 - a script has no blocks
        """Report steps until kicked or shut down. Where vCPU 0's script just ends, that is a Broken exit."""
        while not self._kicked.is_set() and not self._ended:
            waits = self._waits or self._dozes
            step = None if waits else next(self._steps, None)
            if step is None and (waits or self.index):
                self._kicked.wait()
                break
            if step is None:
                step = Broken("the script ended, and the guest had not")
            if isinstance(step, CpuState):
                self._state = step
            elif callable(step):
                step(self._vm.ram)
            else:
                self._report(step, sink)
        self._kicked.clear()

    def _report(self, event: Exit, sink: Sink) -> None:
        answer = sink(event)
        self._vm.replies.append(Reply(self.index, event, answer))
        if isinstance(event, Hypercall):
            rax = (answer or 0) & (1 << 64 if event.bits == 64 else 1 << 32) - 1
            self._state = replace(self._state, gprs=(rax, *self._state.gprs[1:]))
        self._ended = isinstance(event, (Shutdown, Broken))

    def kick(self) -> None:
        """Make run() return; from any thread."""
        self._kicked.set()

    def raise_vector(self, vector: int) -> None:
        """Record the interrupt in the guest's list."""
        self._vm.vectors.append((self.index, vector))

    def inject(self, vector: int, wanted: Callable[[], bool]) -> None:  # noqa: ARG002 - it is taken at once
        """Record the interrupt in the guest's list."""
        self._vm.vectors.append((self.index, vector))

    def recent(self) -> tuple[int, ...]:
        """Return nothing: no code runs."""
        return ()


class ScriptedVm:
    """A guest of this engine.

    replies  every exit reported so far, with its answer, in order
    vectors  every interrupt raised, as (vCPU, vector)
    changed  every (gpa, size) the host told it had written
    mapped   every block of RAM that was added
    """

    def __init__(self, image: Image, scripts: Sequence[Sequence[Step]]) -> None:
        """Make one vCPU for each script; the first has the image's entry state."""
        self.ram = image.ram
        self.replies: list[Reply] = []
        self.vectors: list[tuple[int, int]] = []
        self.changed: list[tuple[int, int]] = []
        self.mapped: list[Block] = []
        self.closed = False
        self.patched: tuple[int, ...] = ()
        self.unpatched: tuple[int, ...] = ()
        self.vcpus = tuple(ScriptedVcpu(index, self, steps) for index, steps in enumerate(scripts))
        self.vcpus[0].load(image.entry)

    def tsc(self) -> int:
        """Return a counter of nanoseconds."""
        return time.monotonic_ns()

    def hypercall_stub(self, number: int) -> bytes:
        """Return mov eax, number; vmcall; ret. Nothing will execute it."""
        return b"\xb8" + number.to_bytes(4, "little") + b"\x0f\x01\xc1\xc3"

    def map(self, block: Block) -> bool:
        """Accept it: the script's own steps see all of RAM."""
        self.mapped.append(block)
        return True

    def written(self, gpa: int, size: int) -> None:
        """Record it."""
        self.changed.append((gpa, size))

    def break_at(self, addresses: frozenset[int]) -> bool:  # noqa: ARG002 - nothing is executed
        """Refuse."""
        return False

    def capture(self) -> None:
        """Refuse: what a script has left cannot be kept. Raises EngineError."""
        raise EngineError("a scripted guest has no snapshots")

    def apply(self, state: object) -> None:
        """Do nothing: there is no state."""

    def close(self) -> None:
        """Note that it was called."""
        self.closed = True


class ScriptedEngine:
    """Replays exits. vms holds every guest that was opened, oldest first."""

    name = "scripted"
    tsc_khz = 1_000_000
    clock: Clock = HostClock()

    def __init__(
        self,
        script: Sequence[Step] | Mapping[int, Sequence[Step]],
        traits: Traits = _TRAITS,
        cpuid: CpuidTable = _CPUID,
    ) -> None:
        """Take the script of vCPU 0, or scripts by vCPU index."""
        self.traits = traits
        self.vms: list[ScriptedVm] = []
        self._scripts = script if isinstance(script, Mapping) else {0: script}
        self._cpuid = cpuid

    def cpuid(self) -> CpuidTable:
        """Return the table it was made with."""
        return self._cpuid

    def close(self) -> None:
        """Do nothing: it has nothing of the host's."""

    def open(self, image: Image, cpuid: tuple[CpuidTable, ...]) -> ScriptedVm:
        """Make a guest that starts at the scripts' beginning."""
        vm = ScriptedVm(image, [self._scripts.get(index, ()) for index in range(len(cpuid))])
        self.vms.append(vm)
        return vm
