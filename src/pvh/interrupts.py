"""Interrupts on an engine without local APICs: ours, and what they send one another."""

from __future__ import annotations

from collections.abc import Callable

from pvh.devices.lapic import BASE, SIZE, LocalApic
from pvh.hints import TYPE_CHECKING
from pvh.xen.vcpu_entry import sipi_state

if TYPE_CHECKING:
    from pvh.engines.engine import Vcpu
    from pvh.engines.exits import MmioRead, MmioWrite
    from pvh.machine import Machine
    from pvh.xen.domain import Domain

# ICR (Intel SDM vol. 3, 11.6.1)
_FIXED, _LOWEST, _NMI, _INIT, _SIPI = 0, 1, 4, 5, 6
_LOGICAL = 1 << 11
_ASSERT = 1 << 14
_LEVEL = 1 << 15
_TO_SELF, _TO_ALL, _TO_OTHERS = 1, 2, 3


class Interrupts:
    """The local APICs of a guest. Called by the thread that runs its vCPUs, which take turns."""

    KEPT = ("_lapics", "_await_sipi")

    def __init__(self, machine: Machine, domain: Domain | None, vcpus: int, apic: Callable[[int], LocalApic]) -> None:
        """apic(vcpu) makes the local APIC of a vCPU."""
        self._machine = machine
        self._domain = domain
        self._lapics = [apic(vcpu) for vcpu in range(vcpus)]
        self._await_sipi = set(range(1, vcpus))  # without Xen, which keeps this itself
        for vcpu, lapic in enumerate(self._lapics):
            lapic.send = lambda command, destination, source=vcpu: self._send(source, command, destination)  # type: ignore[misc]

    def access(self, vcpu: Vcpu, event: MmioRead | MmioWrite) -> int | None:
        """Answer an access to the local APIC's page; None when it is to no such page."""
        from pvh.engines.exits import MmioRead

        offset = event.address - BASE
        if not 0 <= offset < SIZE:
            return None
        lapic = self._lapics[vcpu.index]
        if isinstance(event, MmioRead):
            return lapic.read(offset & ~15) >> (offset & 3) * 8 & (1 << event.size * 8) - 1
        if not offset & 15:
            lapic.write(offset, event.value & 0xFFFFFFFF)
            self._hand_over(vcpu.index)
        return 0

    def raise_vector(self, vcpu: int, vector: int) -> None:
        """Deliver an edge interrupt to a local APIC."""
        self._lapics[vcpu].accept(vector)
        self._hand_over(vcpu)

    def expire(self, vcpu: int) -> None:
        """Fire a local APIC's timer."""
        self._lapics[vcpu].expire()
        self._hand_over(vcpu)

    def _hand_over(self, vcpu: int) -> None:
        """Hand the processor what its local APIC wants taken."""
        lapic = self._lapics[vcpu]
        vector = lapic.pending()
        if vector is not None:
            lapic.acknowledge(vector)
            self._machine.deliver(vcpu, vector)

    def _send(self, source: int, command: int, destination: int) -> None:
        """Carry an inter-processor interrupt out."""
        mode = command >> 8 & 7
        targets = self._targets(source, command, destination)
        for target in targets[:1] if mode == _LOWEST else targets:
            if mode in (_FIXED, _LOWEST):
                self.raise_vector(target, command & 0xFF)
            elif mode == _NMI:
                self._machine.nmi(target)
            elif mode == _INIT and not (command & _LEVEL and not command & _ASSERT):
                self._init(target)
            elif mode == _SIPI:
                self._sipi(target, command & 0xFF)

    def _targets(self, source: int, command: int, destination: int) -> list[int]:
        shorthand = command >> 18 & 3
        if shorthand == _TO_SELF:
            return [source]
        if shorthand in (_TO_ALL, _TO_OTHERS):
            return [v for v in range(len(self._lapics)) if shorthand == _TO_ALL or v != source]
        logical = bool(command & _LOGICAL)
        return [v for v, lapic in enumerate(self._lapics) if lapic.is_addressed(destination, logical=logical)]

    def _init(self, target: int) -> None:
        """Reset a vCPU that was started; Xen leaves others, and their local APICs, alone (vlapic_init_sipi_one)."""
        if self._domain:
            if self._domain.processors[target].stage != "created":
                self._lapics[target].reset()
            self._domain.apic_init(target)
        elif target not in self._await_sipi:
            self._lapics[target].reset()
            self._await_sipi.add(target)
            self._machine.offline(target)

    def _sipi(self, target: int, vector: int) -> None:
        if self._domain:
            self._domain.apic_sipi(target, vector)
        elif target in self._await_sipi:
            self._await_sipi.discard(target)
            self._machine.online(target, sipi_state(vector))
