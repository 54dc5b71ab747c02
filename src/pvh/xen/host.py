"""What the personality needs of the machine it lives in."""

from __future__ import annotations

from pvh.hints import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pvh.build.cpu_state import CpuState
    from pvh.engines.engine import Awaits, CpuidTable

DOMID = 1  # the first domain a toolstack starts
BACKEND_DOMID = 0  # where the other ends of its devices are


class Host(Protocol):
    """Seen from a Domain. Times are nanoseconds of the domain's clock (0 = creation)."""

    @property
    def tsc_khz(self) -> int:
        """Frequency of the guest's TSC."""
        ...

    @property
    def stopping(self) -> bool:
        """The run is being ended from outside."""
        ...

    def guest_tsc(self) -> int:
        """Return what RDTSC in the guest would give now."""
        ...

    def wallclock(self) -> int:
        """Return ns since 1970, UTC."""
        ...

    def raise_vector(self, vcpu: int, vector: int) -> None:
        """Deliver an edge interrupt through the vCPU's local APIC."""
        ...

    def block(self, vcpu: int) -> None:
        """Have a vCPU sleep after the hypercall it is in, until wake(), an interrupt or an NMI; from its own thread.

        An engine that gives the vCPU an interrupt by itself ends the sleep without a word to the domain.
        """
        ...

    def wake(self, vcpu: int) -> None:
        """End the sleep of a vCPU that block() put to sleep; without effect on another."""
        ...

    def let_others_run(self, vcpu: int) -> None:
        """Have a vCPU end its turn after the hypercall it is in, where vCPUs take turns."""
        ...

    def back(self, gpa: int) -> bool:
        """Put a page of zeroed memory behind a guest frame that has none, for good; False where that cannot be."""
        ...

    def inject(self, vcpu: int, vector: int) -> None:
        """Interrupt a vCPU past its local APIC, as an ExtINT: no EOI follows, and a disabled APIC is no obstacle."""
        ...

    def arm(self, vcpu: int, deadline: int | None) -> None:
        """Ask for Domain.expire(vcpu) once the domain's clock reaches deadline; None disarms."""
        ...

    def end_domain(self, reason: int, why: str | None = None, vcpu: int | None = None) -> None:
        """Stop every vCPU: the domain has shut down for a SHUTDOWN_* reason.

        why is a sentence where no sched_op asked for it, and vcpu then whose doing it was.
        """
        ...

    def cpuid(self, vcpu: int) -> CpuidTable:
        """Return what CPUID answers on a vCPU."""
        ...

    def online(self, vcpu: int, state: CpuState | None) -> None:
        """Have a vCPU run, from a state, or from where it stopped (None).

        May follow an offline() of the vCPU that has not come about yet: then it stops, and then this is done.
        """
        ...

    def offline(self, vcpu: int) -> None:
        """Have a vCPU stop between two instructions, registers kept; at once if it is the one that asks, else soon."""
        ...

    def awaits(self, vcpu: int) -> Awaits | None:
        """Tell what an engine's own local APIC, and HLT with interrupts off, made of a vCPU.

        None where those reach the personality (traits.sees_init_sipi), and while an online() or offline() is on its way
        that the answer would be out of date by. It waits for no vCPU: one may be waiting for the domain's lock, which
        the caller holds.
        """
        ...

    def ignore_sipi(self, vcpu: int) -> None:
        """Have an engine's own local APIC ignore SIPIs to a waiting vCPU, until an INIT comes."""
        ...

    def typed(self, count: int) -> bytes:
        """Return up to count bytes of what was typed to the guest; none when none wait."""
        ...

    def nmi(self, vcpu: int) -> None:
        """Make an NMI pending in a vCPU; one waits at most, also in a vCPU that is down."""
        ...
