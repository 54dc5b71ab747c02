"""The side of a hypercall that called: which vCPU, in which mode, and its memory."""

from __future__ import annotations

import struct
from collections.abc import Callable

from pvh.abi.x86 import RFLAGS_IF
from pvh.build.cpu_state import CpuState
from pvh.build.linear import LinearFault, LinearMemory
from pvh.build.ram import GuestRam


class Caller:
    """A vCPU inside a hypercall.

    vcpu          its id
    wide          the calling code is 64-bit: structures have 64-bit pointers and longs; else the compat layouts
    in_multicall  the call is one of a multicall's list
    """

    __slots__ = ("_memory", "_ram", "_state", "in_multicall", "vcpu", "wide")

    def __init__(self, vcpu: int, bits: int, ram: GuestRam, state: Callable[[], CpuState]) -> None:
        self.vcpu = vcpu
        self.wide = bits == 64
        self._ram = ram
        self._state = state
        self._memory: LinearMemory | None = None
        self.in_multicall = False

    @property
    def memory(self) -> LinearMemory:
        """Guest memory by linear address, through the caller's page tables."""
        if self._memory is None:
            self._memory = LinearMemory(self._ram, self._state())
        return self._memory

    @property
    def interrupts_enabled(self) -> bool:
        """Whether the vCPU takes interrupts (RFLAGS.IF)."""
        return bool(self._state().rflags & RFLAGS_IF)

    def try_load(self, layout: str, address: int) -> tuple[int, ...] | None:
        """Copy a structure in, or return None, for calls that tell of that by other means than -EFAULT."""
        try:
            return self.load(layout, address)
        except LinearFault:
            return None

    def load(self, layout: str, address: int) -> tuple[int, ...]:
        """Copy a structure in; LinearFault where Xen's copy_from_guest fails (the call then gives -EFAULT)."""
        return struct.unpack(layout, self.memory.read(address, struct.calcsize(layout)))

    def try_write(self, address: int, data: bytes) -> bool:
        """Copy bytes out; return whether that was possible, for calls that tell of it by other means than -EFAULT."""
        try:
            self.memory.write(address, data)
        except LinearFault:
            return False
        return True

    def store(self, layout: str, address: int, *values: int) -> None:
        """Copy a structure out; LinearFault where Xen's copy_to_guest fails."""
        self.memory.write(address, struct.pack(layout, *values))
