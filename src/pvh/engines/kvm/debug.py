"""Breakpoints and single steps: KVM_SET_GUEST_DEBUG (Documentation/virt/kvm/api.rst, 4.87).

Breakpoints are the processor's own, four at most: nothing in guest memory changes, and what the guest keeps in its
debug registers has no effect meanwhile.
"""

from __future__ import annotations

import struct

from pvh.engines.kvm import ioctl as kvm
from pvh.errors import EngineError

MOST = 4
_ENABLE, _SINGLE_STEP, _HARDWARE, _NO_INTERRUPTS = 1, 2, 1 << 17, 1 << 20
_GUEST_DEBUG = struct.Struct("<II8Q")  # struct kvm_guest_debug: control, pad, debugreg
_DR7_ONES = 0x400


class GuestDebug:
    """What one vCPU is watched for. Between runs."""

    def __init__(self, fd: int) -> None:
        """Begin with nothing."""
        self._fd = fd
        self._addresses: tuple[int, ...] = ()

    def break_at(self, addresses: tuple[int, ...]) -> None:
        """Have these linear addresses, MOST of them, stop the vCPU. Raises EngineError where KVM cannot."""
        self._set(addresses, single=False)
        self._addresses = addresses

    def step(self, *, single: bool) -> None:
        """Begin or end single steps: breakpoints do not count meanwhile."""
        self._set(() if single else self._addresses, single=single)

    def _set(self, addresses: tuple[int, ...], *, single: bool) -> None:
        control = (_HARDWARE if addresses else 0) | (_SINGLE_STEP | _NO_INTERRUPTS if single else 0)
        registers = [*addresses, *[0] * (7 - len(addresses)), _DR7_ONES]
        for index in range(len(addresses)):
            registers[7] |= 2 << 2 * index  # G: exact execution, length and kind 0
        record = _GUEST_DEBUG.pack(control | _ENABLE if control else 0, 0, *registers)
        try:
            kvm.must("debugging", self._fd, kvm.SET_GUEST_DEBUG, record)
        except EngineError:
            if not single:
                raise
            older = _GUEST_DEBUG.pack(_ENABLE | _SINGLE_STEP, 0, *registers)  # before Linux 5.16
            kvm.must("single steps", self._fd, kvm.SET_GUEST_DEBUG, older)
