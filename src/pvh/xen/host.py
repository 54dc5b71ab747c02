"""What the personality needs of the machine it lives in."""

from __future__ import annotations

from pvh.hints import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pvh.build.cpu_state import CpuState
    from pvh.engines.engine import CpuidTable

DOMID = 1  # the first domain a toolstack starts


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

    def raise_vector(self, vcpu: int, vector: int) -> None:
        """Deliver an edge interrupt through the vCPU's local APIC."""
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

    def waits_for_sipi(self, vcpu: int) -> bool | None:
        """Tell what an engine's own local APIC did with a vCPU: an INIT has it wait, a SIPI has it wait no longer.

        None where INIT and SIPI reach the personality (traits.sees_init_sipi), and for the vCPU that asks. It waits for
        no vCPU: one may be waiting for the domain's lock, which the caller holds.
        """
        ...

    def typed(self, count: int) -> bytes:
        """Return up to count bytes of what was typed to the guest; none when none wait."""
        ...

    def nmi(self, vcpu: int) -> None:
        """Make an NMI pending in a vCPU; one waits at most, also in a vCPU that is down."""
        ...
