"""Board: what a guest's exits reach - ports, the local APIC, MSRs, Xen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from pvh.abi.cpuid import MSR_HYPERCALL
from pvh.abi.errno import ENOSYS
from pvh.abi.x86 import PAGE_SIZE
from pvh.devices.debug import claim_debug_ports
from pvh.devices.ports import Ports
from pvh.devices.serial import COM1, Serial
from pvh.engines.exits import Exit, Hypercall, MmioRead, MmioWrite, MsrRead, MsrWrite, PortIn, PortOut
from pvh.hints import TYPE_CHECKING, Any
from pvh.kept import apply, capture

if TYPE_CHECKING:
    from pvh.build.cpu_state import CpuState
    from pvh.build.image import Image
    from pvh.engines.engine import Engine, Vcpu, Vm
    from pvh.interrupts import Interrupts
    from pvh.machine import Machine
    from pvh.xen.domain import Domain

Write = Callable[[bytes], None]
_PIT_CHANNEL_2 = 0x42


class Board:
    """Everything around the processors of one guest. handle() is called by the thread of the vCPU that exited."""

    def __init__(self, image: Image, engine: Engine, vm: Vm, machine: Machine, console: Write) -> None:
        self.ports = Ports()
        self._vm = vm
        self.domain: Domain | None = None
        self._serial: Serial | None = None
        # No PIT, and seen at once to be none: an all-ones counter is a running one to Linux on AMD processors, which
        # then reads it 100 000 times (arch/x86/kernel/tsc.c, quick_pit_calibrate).
        self.ports.claim(range(_PIT_CHANNEL_2, _PIT_CHANNEL_2 + 1), lambda _port, _size: 0, None)
        claim_debug_ports(self.ports, console, machine)
        if image.plan.options.platform == "xen":
            from pvh.xen.domain import Domain  # platform bare has no use for it

            self.domain = Domain(image, machine, console)
        else:
            self._serial = Serial(self.ports, COM1, console, machine.typed)
        self._dispatch: Callable[[Domain, int, Hypercall, Callable[[], CpuState]], int] | None = None
        self._interrupts: Interrupts | None = None
        if not engine.traits.has_lapic:
            from pvh.interrupts import Interrupts

            self._interrupts = Interrupts(machine, self.domain, image.plan.options.vcpus, machine.local_apic)

    def capture(self) -> dict[str, Any]:
        """Return what is kept of everything around the processors. No vCPU runs."""
        return {name: capture(device) for name, device in self._kept()}

    def apply(self, state: dict[str, Any]) -> None:
        """Go on from what capture() returned."""
        for name, device in self._kept():
            apply(device, state[name])

    def _kept(self) -> Iterator[tuple[str, object]]:
        places = {"domain": self.domain, "interrupts": self._interrupts, "serial": self._serial}
        return ((name, device) for name, device in places.items() if device)

    def handle(self, vcpu: Vcpu, event: Exit) -> int | None:
        """Carry an exit out and return the answer its class asks for; None for exits the board does not know."""
        if isinstance(event, Hypercall):
            return self._hypercall(vcpu, event)
        if isinstance(event, PortOut):
            self.ports.write(event.port, event.size, event.value)
        elif isinstance(event, PortIn):
            return self.ports.read(event.port, event.size)
        elif isinstance(event, (MmioRead, MmioWrite)):
            return self._mmio(vcpu, event)
        elif isinstance(event, (MsrRead, MsrWrite)):
            return self._msr(vcpu, event)
        return None

    def _mmio(self, vcpu: Vcpu, event: MmioRead | MmioWrite) -> int:
        answer = self._interrupts.access(vcpu, event) if self._interrupts else None
        return (1 << event.size * 8) - 1 if answer is None else answer

    def raise_vector(self, vcpu: Vcpu, vector: int) -> None:
        """Deliver an edge interrupt through the vCPU's local APIC, whoever has it."""
        if self._interrupts:
            self._interrupts.raise_vector(vcpu.index, vector)
        else:
            vcpu.raise_vector(vector)

    def flush(self) -> None:
        """Take what the guest left in its console ring without a word."""
        if self.domain:
            with self.domain.lock, suppress(OSError):  # whoever read the console may be gone
                self.domain.serve_console()

    def expire(self, vcpu: Vcpu, timer: str) -> None:
        """Fire a timer of the vCPU, the domain's or the local APIC's; or take what was typed."""
        if timer == "lapic" and self._interrupts:
            self._interrupts.expire(vcpu.index)
        elif self.domain and timer == "typed":
            with self.domain.lock:
                self.domain.serve_console()
        elif self.domain:
            self.domain.expire(vcpu.index)

    def ask_to_power_off(self) -> bool:
        """Ask the guest to power off, through xenstore; return whether it listens to such."""
        return self.domain is not None and self.domain.xenstore.request("poweroff")

    def _hypercall(self, vcpu: Vcpu, event: Hypercall) -> int:
        if self.domain is None:
            return -ENOSYS & ((1 << 64) - 1 if event.bits == 64 else (1 << 32) - 1)
        if self._dispatch is None:
            from pvh.xen.dispatch import hypercall  # a guest that makes no hypercall does not pay for them

            self._dispatch = hypercall
        return self._dispatch(self.domain, vcpu.index, event, vcpu.state)

    def _msr(self, vcpu: Vcpu, event: MsrRead | MsrWrite) -> int | None:
        """Answer a Xen MSR; None is #GP. The hypercall page's MSR reads 0 (xen/arch/x86/hvm/hvm.c, guest_rdmsr_xen)."""
        if self.domain is None or event.index != MSR_HYPERCALL:
            return None
        return 0 if isinstance(event, MsrRead) else self._hypercall_page(vcpu, event.value)

    def _hypercall_page(self, vcpu: Vcpu, value: int) -> int | None:
        """Write the page whose frame and index the guest named, and take its width for shared_info's."""
        from pvh.xen.hypercall_page import hypercall_page  # kernels since XSA-466 do not ask for it

        domain = self.domain
        gpa = value & ~(PAGE_SIZE - 1)
        if domain is None or value % PAGE_SIZE or not domain.ram.write(gpa, hypercall_page(self._vm.hypercall_stub)):
            return None
        self._vm.written(gpa, PAGE_SIZE)
        with domain.lock:
            domain.shared.latch_width(wide=vcpu.state().bits == 64)
        return 0
