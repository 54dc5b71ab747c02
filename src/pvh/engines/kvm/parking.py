"""A vCPU that is down, yet listens to INIT and SIPI: the local APIC is KVM's, so the vCPU waits inside KVM_RUN.

Down is spelled HALTED with IF clear, which no interrupt ends, but an INIT does. Whether one came, or a SIPI, is only
known to the thread that runs the vCPU; others ask it by a kick.
An NMI would end HALTED all the same, and KVM spins when one is pending where a vCPU waits for a SIPI: it takes such an
NMI for an event, and the vCPU cannot. So NMIs wait here until the vCPU runs.
"""

from __future__ import annotations

import threading

from pvh.abi.x86 import RFLAGS_IF
from pvh.engines.kvm import ioctl as kvm
from pvh.engines.kvm import state as registers

_WAITING = (kvm.MP_STATE_UNINITIALIZED, kvm.MP_STATE_INIT_RECEIVED)
_RFLAGS_AT = 17 * 8
_ANSWER_SECONDS = 1.0  # a vCPU thread that is starved of host time this long is taken to be where it was


class Parking:
    """Where one vCPU stands: parked or not, and what the local APIC did with it."""

    def __init__(self, fd: int, *, waits: bool) -> None:
        """Begin as KVM makes a vCPU: the first runs, others wait for a SIPI."""
        self._fd = fd
        self._waits = waits
        self.asked = False  # some thread waits for learn()
        self._answered = threading.Event()
        self._was: tuple[int, int] | None = None  # RFLAGS and MP state before park()
        self._nmi = False  # one waits for the vCPU to run

    def park(self) -> None:
        """Have KVM_RUN execute nothing. From the vCPU's thread, outside KVM_RUN."""
        if self._was is None and not self.learn():
            self._was = self._swap_flags(0), self._mp_state()
            self._set_mp_state(kvm.MP_STATE_HALTED)

    def resume(self) -> None:
        """Undo park(), unless an INIT did. From the vCPU's thread, outside KVM_RUN."""
        was, self._was = self._was, None
        if was is not None and not self.learn():
            self._swap_flags(was[0] & RFLAGS_IF)
            self._set_mp_state(was[1])
        self.hand_nmi_over()

    def nmi(self) -> None:
        """Make an NMI pending, now or once the vCPU runs. From the vCPU's thread, outside KVM_RUN."""
        self._nmi = True
        self.hand_nmi_over()

    def hand_nmi_over(self) -> None:
        """Let KVM have the NMI that waits, if the vCPU runs now. From the vCPU's thread, outside KVM_RUN."""
        if self._nmi and self._was is None and not self.learn():
            self._nmi = False
            kvm.must("an NMI", self._fd, kvm.NMI)

    def forget(self) -> None:
        """Note that the vCPU was loaded anew."""
        self._was = None
        self._waits = False
        self.hand_nmi_over()

    def learn(self) -> bool:
        """Find out whether the vCPU waits for a SIPI, and tell who asked. From the vCPU's thread, outside KVM_RUN."""
        self._waits = self._mp_state() in _WAITING
        self.asked = False
        self._answered.set()
        return self._waits

    def ask(self) -> None:
        """Announce a question to the vCPU's thread, which is about to be kicked."""
        self._answered.clear()
        self.asked = True

    def answer(self) -> bool:
        """Wait for the answer to ask()."""
        self._answered.wait(_ANSWER_SECONDS)
        return self._waits

    def known(self) -> bool:
        """Return what is known without asking: the truth while the vCPU's thread is outside KVM_RUN."""
        return self._waits

    def _swap_flags(self, interrupts: int) -> int:
        """Set RFLAGS.IF; return RFLAGS as they were."""
        regs = bytearray(registers.REGS.size)
        kvm.must("reading the general registers", self._fd, kvm.GET_REGS, regs)
        flags: int = kvm.U64.unpack_from(regs, _RFLAGS_AT)[0]
        kvm.U64.pack_into(regs, _RFLAGS_AT, flags & ~RFLAGS_IF | interrupts)
        kvm.must("the general registers", self._fd, kvm.SET_REGS, regs)
        return flags

    def _mp_state(self) -> int:
        state = bytearray(4)
        kvm.must("reading the run state", self._fd, kvm.GET_MP_STATE, state)
        return int(kvm.U32.unpack(state)[0])

    def _set_mp_state(self, state: int) -> None:
        kvm.must("the run state", self._fd, kvm.SET_MP_STATE, kvm.U32.pack(state))
