"""The seam: what an engine must do. Everything the personality, the machine and the checker know of engines is here."""

from __future__ import annotations

from pvh.build.cpu_state import CpuState
from pvh.build.image import Image
from pvh.clock import Clock
from pvh.engines.exits import Sink
from pvh.hints import TYPE_CHECKING, Any, Literal, Protocol
from pvh.record import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvh.build.ram import Block


@dataclass(frozen=True, slots=True)
class CpuidEntry:
    """One CPUID answer. subleaf is None where the leaf ignores ECX."""

    leaf: int
    subleaf: int | None
    eax: int
    ebx: int
    ecx: int
    edx: int


CpuidTable = tuple[CpuidEntry, ...]

Awaits = Literal["nothing", "init", "sipi", "nmi", "resume"]
"""What a vCPU needs to execute again, where the engine has the local APIC.

nothing  it executes, or sleeps until an interrupt
init     one that was never started, or told to ignore SIPIs: an INIT, and then a SIPI
sipi     an INIT came
nmi      it executed HLT with interrupts off
resume   it was parked, and neither INIT nor SIPI came
"""


@dataclass(frozen=True, slots=True)
class Traits:
    """What an engine can see or do beyond the exits every engine gives.

    has_lapic        it models the local APIC itself (MMIO at 0xfee00000 never reaches the sink)
    sees_halt        Halt exits are reported
    sees_init_sipi   INIT and SIPI of the guest reach the sink
    exact_stop       kick() stops between two instructions with no side effect
    recent           it can name the last instructions executed
    """

    has_lapic: bool
    sees_halt: bool
    sees_init_sipi: bool
    exact_stop: bool
    recent: bool


class Vcpu(Protocol):
    """One processor. Only the thread that runs it calls its methods, except kick()."""

    @property
    def index(self) -> int:
        """The vCPU id, from 0."""
        ...

    @property
    def executed(self) -> int | None:
        """Basic blocks executed so far, nearly; None where the engine does not count them."""
        ...

    def load(self, state: CpuState) -> None:
        """Set every register of the record; what the record does not hold has its reset value.

        With traits.has_lapic, nothing happens to a vCPU that awaits a SIPI: an INIT came after what load() is for.
        """
        ...

    def state(self) -> CpuState:
        """Return the registers. During an exit, RIP is on the instruction that caused it or just behind it."""
        ...

    def assign(self, gprs: tuple[int, ...], rip: int, rflags: int) -> None:
        """Change the general registers (CpuState's order), RIP and RFLAGS, and nothing else. Between runs."""
        ...

    def run(self, sink: Sink, blocks: int | None = None) -> None:
        """Execute until kick() was called or the vCPU shut down, giving every exit to the sink.

        With blocks, an engine whose vCPUs take turns on one thread also returns after about that many basic blocks.
        A kick that comes before run() is not lost: run returns at once. Raises EngineError when the host fails.
        """
        ...

    def step(self, sink: Sink) -> None:
        """Execute one instruction, after taking an interrupt that waits. Raises EngineError where that cannot be."""
        ...

    def park(self) -> None:
        """Have run() execute nothing, keeping the registers, until resume() or load(). From the vCPU's own thread.

        With traits.has_lapic run() then waits for a kick, and for what the local APIC makes of INIT and SIPI.
        """
        ...

    def resume(self) -> None:
        """Have run() go on where park() stopped it, behind a HLT that awaited an NMI. From the vCPU's own thread."""
        ...

    def doze(self) -> None:
        """Have run() execute nothing until rouse() or an interrupt that the vCPU takes. From its own thread.

        Only with traits.has_lapic: elsewhere whoever runs the vCPU knows of every interrupt, and does not call run().
        """
        ...

    def rouse(self) -> None:
        """End what doze() began, if no interrupt has. From the vCPU's own thread."""
        ...

    def awaits(self) -> Awaits | None:
        """Return what the vCPU needs to execute again; None without a local APIC of the engine's.

        From any thread, also while the vCPU runs, but from one at a time; it waits for no sink.
        """
        ...

    def sleeps(self) -> bool:
        """Tell whether it executes nothing before an interrupt or INIT; False where that is an exit. No vCPU runs."""
        ...

    def ignore_sipi(self) -> None:
        """Have a vCPU that awaits a SIPI await an INIT instead. As awaits(), and only where that gives an answer."""
        ...

    def nmi(self) -> None:
        """Make an NMI pending. From the vCPU's own thread, between runs."""
        ...

    def kick(self) -> None:
        """Make run() return soon; from any thread, also from the sink."""
        ...

    def raise_vector(self, vector: int) -> None:
        """Deliver an interrupt as soon as the processor takes interrupts; vectors wait in order.

        With traits.has_lapic it goes through the local APIC as an edge, from any thread; otherwise it is injected as
        an INTA cycle would, and only the vCPU's own thread (or its sink) may ask.
        """
        ...

    def inject(self, vector: int, wanted: Callable[[], bool]) -> None:
        """Interrupt the processor past its local APIC whenever it takes interrupts, as long as wanted().

        A vCPU has one such vector, the one named last; load() forgets it. From any thread with traits.has_lapic, else
        as raise_vector().
        """
        ...

    def recent(self) -> tuple[int, ...]:
        """Return linear addresses of the last blocks executed, newest last (empty if not traits.recent)."""
        ...


class Vm(Protocol):
    """A guest on an engine. vcpus[0] is loaded with the image's entry state, the others are in reset."""

    @property
    def vcpus(self) -> tuple[Vcpu, ...]:
        """The processors."""
        ...

    @property
    def patched(self) -> tuple[int, ...]:
        """Guest-physical addresses where the engine replaced VMCALL/VMMCALL in the guest's code (empty on most)."""
        ...

    @property
    def unpatched(self) -> tuple[int, ...]:
        """Those that it would have replaced, and may not: the engine never reports these hypercalls."""
        ...

    def tsc(self) -> int:
        """Return what RDTSC on vCPU 0 would give now; from any thread."""
        ...

    def hypercall_stub(self, number: int) -> bytes:
        """Return the hypercall page's code for one call: at most 32 bytes, keeping every register but rax."""
        ...

    def map(self, block: Block) -> bool:
        """Show the guest another block of RAM where there was none, between two exits; False when that cannot be."""
        ...

    def break_at(self, addresses: frozenset[int]) -> bool:
        """Have vCPUs stop, with a Break exit, where they are to execute these linear addresses, and no others.

        False, and nothing changed, where they are too many. While no vCPU runs. Raises EngineError if it cannot be.
        """
        ...

    def written(self, gpa: int, size: int) -> None:
        """Tell the engine that the host changed guest memory that may hold code."""
        ...

    def capture(self) -> Any:
        """Return what is kept of the processors, as kept.py has it. No vCPU is running, here and below."""
        ...

    def apply(self, state: Any) -> None:
        """Go on from what capture() returned, of this or another guest of the engine with the same options.

        Guest memory has been made what it was. The vCPUs' time stamp counters go on from where they were.
        """
        ...

    def close(self) -> None:
        """Give everything back. No vCPU may be running."""
        ...


class Engine(Protocol):
    """A way to execute guests."""

    def close(self) -> None:
        """Give back what it has of the host's; no guest can be made after. Its last reference going does the same."""
        ...

    @property
    def name(self) -> str:
        """`emulator`, `kvm` or `scripted`."""
        ...

    @property
    def traits(self) -> Traits:
        """What it can see."""
        ...

    @property
    def tsc_khz(self) -> int:
        """Frequency of the guest's TSC in kHz."""
        ...

    @property
    def clock(self) -> Clock:
        """The clock of its guests."""
        ...

    def cpuid(self) -> CpuidTable:
        """Return the CPUID leaves it can execute faithfully, before any personality is added."""
        ...

    def open(self, image: Image, cpuid: tuple[CpuidTable, ...]) -> Vm:
        """Make a guest of an image, with one CPUID table for each vCPU (their number is the number of vCPUs).

        Raises EngineError when the host refuses.
        """
        ...
