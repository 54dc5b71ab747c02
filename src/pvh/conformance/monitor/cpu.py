"""The processor as it stands at an instruction: values, code width, address translation."""

from __future__ import annotations

from pvh.abi import x86
from pvh.build.linear import LinearMemory
from pvh.engines.emulator import calibrate as cal
from pvh.engines.emulator.libunicorn import REG_GPRS, REG_RFLAGS
from pvh.engines.emulator.registers import Registers
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.build.cpu_state import CpuState
    from pvh.build.ram import GuestRam
    from pvh.engines.emulator.vm import EmulatorVm


class Cpu:
    """What the tracker asks of the processor, from a hook: RIP is on an instruction that has not been executed.

    stale     is set by whoever knows that modes, tables or segments may have changed: they are looked up again
    executed  guest-physical pages that code was executed from
    """

    def __init__(self, vm: EmulatorVm) -> None:
        self._handle = vm.processor.handle
        self._registers = Registers(self._handle, vm.layout)
        self._ram: GuestRam = vm.ram
        self._tlb: dict[int, int | None] = {}
        self.stale = True
        self.state: CpuState | None = None
        self.bits = 32
        self.bases: dict[str, int] = {}
        self.paging = False
        self.executed: set[int] = set()

    def close(self) -> None:
        """Give everything back."""
        self._registers.free()

    def refresh(self) -> None:
        """Look modes, tables and segments up again."""
        self.stale = False
        self._tlb.clear()
        self._registers.save()
        state = self.state = self._registers.state(self._registers.rip, 0)
        self.bits = state.bits
        self.paging = bool(state.cr0 & x86.CR0_PG)
        self.bases = {name: getattr(state, name).base for name in cal.SEGMENT_ORDER}
        self._memory = LinearMemory(self._ram, state)

    def gpr(self, index: int) -> int:
        """Return a general register, all 64 bits."""
        return self._handle.read(REG_GPRS[index])

    def flags(self) -> int:
        """Return EFLAGS."""
        return self._handle.read(REG_RFLAGS)

    def set_gpr(self, index: int, value: int) -> None:
        """Set a general register, all 64 bits."""
        self._handle.write(REG_GPRS[index], value)

    def window(self, linear: int, size: int) -> list[memoryview] | None:
        """Return what lies behind linear addresses, page by page, if all of it is RAM that may be written."""
        pieces: list[memoryview] = []
        while size > 0:
            count = min(size, 4096 - (linear & 0xFFF))
            gpa = self._memory.translate(linear, write=True)
            block = self._ram.block(gpa, count) if gpa is not None else None
            if gpa is None or block is None or gpa >> 12 in self.executed:
                return None
            pieces.append(block.view[gpa - block.gpa :][:count])
            linear, size = linear + count, size - count
        return pieces

    def physical(self, linear: int) -> int | None:
        """Return the guest-physical address of a linear one, None where it leads nowhere."""
        if not self.paging:
            return linear & 0xFFFFFFFF
        page = linear >> 12
        frame = self._tlb.get(page)
        if frame is None:
            frame = self._memory.translate(linear & -4096)
            if frame is None:
                return None
            self._tlb[page] = frame
        return frame | linear & 0xFFF

    def memory(self, linear: int, size: int) -> bytes:
        """Return bytes of guest memory, as many as there are."""
        parts: list[bytes] = []
        while size > 0:
            count = min(size, 4096 - (linear & 0xFFF))
            gpa = self.physical(linear)
            block = self._ram.block(gpa, 1) if gpa is not None else None
            if gpa is None or block is None:
                break
            parts.append(bytes(block.view[gpa - block.gpa :][:count]))
            linear, size = linear + count, size - count
        return b"".join(parts)
