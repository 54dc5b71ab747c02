"""What the personality needs of the machine it lives in."""

from __future__ import annotations

from typing import Protocol

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

    def end_domain(self, reason: int) -> None:
        """Stop every vCPU: the domain has shut down for a SHUTDOWN_* reason."""
        ...
