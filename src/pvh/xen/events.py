"""Event channels, 2-level ABI (xen/common/event_{channel,2l}.c)."""

from __future__ import annotations

from collections.abc import Callable

from pvh.abi import shared_info as abi
from pvh.hints import TYPE_CHECKING, Literal
from pvh.record import dataclass
from pvh.xen import atomics

if TYPE_CHECKING:
    from pvh.xen.shared_info import SharedInfo

Kind = Literal["unbound", "host", "virq", "ipi"]


@dataclass(slots=True)
class Channel:
    """An allocated port. host: its other end is a device of ours, told by notify."""

    kind: Kind
    vcpu: int = 0
    virq: int = 0
    remote: int = 0
    notify: Callable[[], None] | None = None


class Events:
    """Ports, their state, and the upcall of each vCPU."""

    def __init__(self, shared: SharedInfo, upcall: Callable[[int], None]) -> None:
        """upcall(vcpu) is called when a vCPU's evtchn_upcall_pending went from 0 to 1."""
        self._shared = shared
        self._upcall = upcall
        self.channels: dict[int, Channel] = {}

    def allocate(self, channel: Channel) -> int | None:
        """Give a channel the lowest free port (port 0 is reserved); None when there is none left."""
        port = next((port for port in range(1, self._shared.layout.ports) if port not in self.channels), None)
        if port is not None:
            self.channels[port] = channel
        return port

    def virq_port(self, vcpu: int, virq: int) -> int | None:
        """Return the port a per-vCPU VIRQ is bound to."""
        return next(
            (port for port, c in self.channels.items() if (c.kind, c.vcpu, c.virq) == ("virq", vcpu, virq)), None
        )

    def raise_virq(self, vcpu: int, virq: int) -> None:
        """Raise a VIRQ; dropped when it is not bound."""
        port = self.virq_port(vcpu, virq)
        if port is not None:
            self.set_pending(port)

    def set_pending(self, port: int) -> None:
        """Make a port pending in the guest; tell its vCPU unless the port is masked or already was pending.

        Dropped when the port is closed.
        """
        if port not in self.channels or atomics.test_and_set_bit(self._shared.pending, port):
            return
        if not atomics.test_bit(self._shared.mask, port):
            self._select(port)

    def unmask(self, port: int) -> None:
        """Clear a port's mask; if it is pending, tell its vCPU."""
        if atomics.test_and_clear_bit(self._shared.mask, port) and atomics.test_bit(self._shared.pending, port):
            self._select(port)

    def clear(self, port: int) -> None:
        """Forget that a port is pending (it is being closed)."""
        atomics.test_and_clear_bit(self._shared.pending, port)

    def _select(self, port: int) -> None:
        vcpu = self.channels[port].vcpu
        info = self._shared.vcpu_info(vcpu)
        layout = self._shared.layout
        if not atomics.test_and_set_bit(info + layout.pending_sel, port // (layout.word * 8)):
            self.mark(vcpu)

    def wants_upcall(self, vcpu: int) -> bool:
        """Return whether a vCPU's evtchn_upcall_pending is set."""
        return bool(atomics.test_bit(self._shared.vcpu_info(vcpu) + abi.UPCALL_PENDING, 0))

    def mark(self, vcpu: int) -> None:
        """Set a vCPU's evtchn_upcall_pending; call it up when that is news."""
        if not atomics.exchange_byte(self._shared.vcpu_info(vcpu) + abi.UPCALL_PENDING, 1):
            self._upcall(vcpu)
