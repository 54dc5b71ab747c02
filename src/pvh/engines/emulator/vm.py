"""A guest on the emulator: its memory, its processor, its vCPUs."""

from __future__ import annotations

from pvh.build.image import Image
from pvh.build.ram import Block
from pvh.clock import Clock, InstructionClock
from pvh.engines.emulator.calibrate import Layout
from pvh.engines.emulator.cpuid import CpuidLookup
from pvh.engines.emulator.native import host_tsc
from pvh.engines.emulator.processor import Processor
from pvh.engines.emulator.vcpu import EmulatorVcpu
from pvh.engines.emulator.vmcb import EXIT_RDTSC
from pvh.engines.engine import CpuidTable
from pvh.hints import Any
from pvh.native import rdtsc


class EmulatorVm:
    """A guest; see engines/engine.py for what its methods promise."""

    patched: tuple[int, ...] = ()
    unpatched: tuple[int, ...] = ()

    def __init__(self, image: Image, cpuid: tuple[CpuidTable, ...], layout: Layout, clock: Clock) -> None:
        self.ram = image.ram
        self.layout = layout
        # RDTSC gives the host's counter, unless it is caught.
        caught = clock.virtual or rdtsc() is None
        self.processor = Processor(image.ram, (EXIT_RDTSC,) if caught else ())
        self.counter = host_tsc
        if isinstance(clock, InstructionClock):
            clock.follow(lambda: self.processor.stopper.executed)
            self.counter = clock.now
        # The guest's time stamp counter begins at 0.
        self.tsc_offset = -self.counter()
        self._vcpus = [self.vcpu(index, table) for index, table in enumerate(cpuid)]
        self._vcpus[0].load(image.entry)

    def vcpu(self, index: int, table: CpuidTable) -> EmulatorVcpu:
        """Make a processor."""
        return EmulatorVcpu(self, index, CpuidLookup(table))

    @property
    def vcpus(self) -> tuple[EmulatorVcpu, ...]:
        """The processors."""
        return tuple(self._vcpus)

    def tsc(self) -> int:
        """Return what RDTSC on vCPU 0 would give now."""
        return self._vcpus[0].tsc()

    def hypercall_stub(self, number: int) -> bytes:
        """Return the hypercall page's code for one call."""
        return b"\xb8" + number.to_bytes(4, "little") + b"\x0f\x01\xc1\xc3"  # mov $number, %eax ; vmcall ; ret

    def map(self, block: Block) -> bool:
        """Show the guest another block of RAM."""
        return self.processor.add(block)

    def written(self, gpa: int, size: int) -> None:  # noqa: ARG002  translated code cannot be forgotten by physical address
        """Have code forgotten that the host may have changed."""
        self.processor.code_changed()

    def break_at(self, addresses: frozenset[int]) -> bool:
        """Have vCPUs stop, with a Break exit, where they are to execute these linear addresses, and no others."""
        if self.processor.breakpoints.set(addresses):
            self.processor.code_changed()
        return True

    def capture(self) -> dict[str, Any]:
        """Return what is kept of the processors."""
        return {"at": self.counter(), "vcpus": [vcpu.capture() for vcpu in self._vcpus]}

    def apply(self, state: dict[str, Any]) -> None:
        """Go on from what capture() returned, with guest memory as it was then."""
        self.processor.vacate()
        for vcpu, of_it in zip(self._vcpus, state["vcpus"], strict=True):
            vcpu.apply(of_it)
            vcpu.shift_tsc(state["at"] - self.counter())
        self.processor.code_changed()

    def close(self) -> None:
        """Give everything back but the image's memory."""
        for vcpu in self._vcpus:
            vcpu.close()
        self._vcpus.clear()
        self.processor.close()
