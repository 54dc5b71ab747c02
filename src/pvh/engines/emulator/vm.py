"""A guest on the emulator: its memory, its processors, what they share."""

from __future__ import annotations

from typing import Any

from pvh.build.image import Image
from pvh.build.ram import GuestRam
from pvh.engines.emulator import libunicorn as uc
from pvh.engines.emulator.calibrate import Layout
from pvh.engines.emulator.cpuid import CpuidLookup
from pvh.engines.emulator.native import host_tsc
from pvh.engines.emulator.vcpu import EmulatorVcpu
from pvh.engines.engine import CpuidTable

# MAXPHYADDR of the guest: everything below that is not RAM is I/O.
_ADDRESS_LIMIT = 1 << 40
_RWX = uc.PROT_READ | uc.PROT_WRITE | uc.PROT_EXEC


class EmulatorVm:
    """A guest; see engines/engine.py for what its methods promise."""

    patched: tuple[int, ...] = ()

    def __init__(self, image: Image, cpuid: tuple[CpuidTable, ...], layout: Layout) -> None:
        self.ram: GuestRam = image.ram
        self.layout = layout
        # The guest's time stamp counter begins at 0.
        self.tsc_offset = -host_tsc()
        self._vcpus = [EmulatorVcpu(self, index, CpuidLookup(table)) for index, table in enumerate(cpuid)]
        self._vcpus[0].load(image.entry)

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

    def map_into(self, handle: uc.Handle, read: Any, write: Any) -> None:
        """Show RAM to a processor, and give it the callbacks for everything between and above."""
        readers, writers = uc.MmioReadHook(read), uc.MmioWriteHook(write)
        at = 0
        for block in self.ram.blocks:
            if at < block.gpa:
                handle.map_io(at, block.gpa - at, readers, writers)
            handle.map_memory(block.gpa, block.size, block.host, _RWX)
            at = block.end
        if at < _ADDRESS_LIMIT:
            handle.map_io(at, _ADDRESS_LIMIT - at, readers, writers)

    def written(self, gpa: int, size: int) -> None:  # noqa: ARG002  translated code cannot be forgotten by physical address
        """Have code forgotten that the host may have changed."""
        for vcpu in self._vcpus:
            vcpu.code_changed()

    def close(self) -> None:
        """Give everything back but the image's memory."""
        for vcpu in self._vcpus:
            vcpu.close()
        self._vcpus.clear()
