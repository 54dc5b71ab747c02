"""Event channels, 2-level ABI (xen/common/event_{channel,2l}.c)."""

from __future__ import annotations

from collections.abc import Callable

from pvh.abi import shared_info as abi
from pvh.abi.event_channel import MOST_PORTS, PORTS_ADDED
from pvh.hints import TYPE_CHECKING, Literal
from pvh.record import dataclass
from pvh.xen import atomics

if TYPE_CHECKING:
    from pvh.xen.shared_info import SharedInfo

Kind = Literal["unbound", "interdomain", "host", "virq", "ipi"]
Device = Literal["console", "xenstore"]


@dataclass(slots=True)
class Channel:
    """An allocated port.

    kind    unbound: waits for domain `remote`; interdomain: its other end is port `peer` of the same domain; host: its
            other end is a device of ours in domain 0
    vcpu    whom it interrupts
    port    set when it is allocated
    """

    kind: Kind
    vcpu: int = 0
    virq: int = 0
    remote: int = 0
    peer: int = 0
    device: Device | None = None
    port: int = 0


class Events:
    """Ports, their state, and the upcall of each vCPU. Callers hold the domain's lock."""

    KEPT = ("channels", "_valid")

    def __init__(self, shared: SharedInfo, upcall: Callable[[int], None], pending: Callable[[int], None]) -> None:
        """Begin without ports.

        upcall   is called when a vCPU's evtchn_upcall_pending went from 0 to 1
        pending  is called with each port that becomes pending, masked or not
        """
        self._shared = shared
        self._upcall = upcall
        self._pending = pending
        self.channels: dict[int, Channel] = {}
        self._told: dict[Device, Callable[[], None]] = {}
        self._valid = PORTS_ADDED

    def describe(self) -> list[str]:
        """Return a line for each port: its number, what it is, whom it interrupts, and its bits."""
        lines: list[str] = []
        for port, channel in sorted(self.channels.items()):
            what = {"virq": f"VIRQ {channel.virq}", "host": f"to {channel.device}", "interdomain": f"to {channel.peer}"}
            pending = ", pending" if atomics.test_bit(self._shared.pending, port) else ""
            masked = ", masked" if atomics.test_bit(self._shared.mask, port) else ""
            lines.append(f"{port:5} {what.get(channel.kind, channel.kind)}, vCPU {channel.vcpu}{pending}{masked}")
        return lines

    def allocate(self, channel: Channel) -> int | None:
        """Give a channel the lowest free port (port 0 is reserved); None when there is none left."""
        limit = min(self._shared.layout.ports, MOST_PORTS)
        port = next((port for port in range(1, limit) if port not in self.channels), None)
        if port is not None:
            self.channels[port] = channel
            channel.port = port
            self._valid = max(self._valid, port // PORTS_ADDED * PORTS_ADDED + PORTS_ADDED)
        return port

    def connect(self, device: Device, told: Callable[[], None]) -> int:
        """Give a device of ours a port, as a toolstack does before the guest runs; told() is called when it rings."""
        self._told[device] = told
        port = self.allocate(Channel("host", device=device))
        assert port is not None
        return port

    def tell(self, device: Device) -> None:
        """Tell a device of ours that the guest rang."""
        self._told[device]()

    def is_valid(self, port: int) -> bool:
        """Whether Xen has a record of a port, allocated or free."""
        return port < self._valid

    def close(self, port: int) -> bool:
        """Free a port, which is pending no more; its other end waits for another. False when it is free."""
        channel = self.channels.pop(port, None)
        if channel is None:
            return False
        peer = self.channels.get(channel.peer) if channel.kind == "interdomain" else None
        if peer:
            peer.kind = "unbound"
        atomics.test_and_clear_bit(self._shared.pending, port)
        return True

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

    def signal(self, device: Device) -> None:
        """Have a device of ours tell the guest; dropped when the guest has closed its port."""
        port = next((port for port, channel in self.channels.items() if channel.device == device), None)
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
        self._pending(port)

    def is_pending(self, port: int) -> bool:
        """Return whether an allocated port is pending."""
        return port in self.channels and bool(atomics.test_bit(self._shared.pending, port))

    def unmask(self, port: int) -> None:
        """Clear an allocated port's mask; if it is pending, tell its vCPU."""
        if atomics.test_and_clear_bit(self._shared.mask, port) and atomics.test_bit(self._shared.pending, port):
            self._select(port)

    def _select(self, port: int) -> None:
        vcpu = self.channels[port].vcpu
        info = self._shared.vcpu_info(vcpu)
        layout = self._shared.layout
        if not atomics.test_and_set_bit(info + layout.pending_sel, port // (layout.word * 8)):
            self.mark(vcpu)

    def wants_upcall(self, vcpu: int) -> bool:
        """Return whether a vCPU's evtchn_upcall_pending is set."""
        return bool(atomics.test_bit(self._shared.vcpu_info(vcpu) + abi.UPCALL_PENDING, 0))

    def let_upcalls(self, vcpu: int) -> None:
        """Clear a vCPU's evtchn_upcall_mask, as blocking does."""
        atomics.exchange_byte(self._shared.vcpu_info(vcpu) + abi.UPCALL_MASK, 0)

    def mark(self, vcpu: int) -> None:
        """Set a vCPU's evtchn_upcall_pending; call it up when that is news."""
        if not atomics.exchange_byte(self._shared.vcpu_info(vcpu) + abi.UPCALL_PENDING, 1):
            self._upcall(vcpu)
