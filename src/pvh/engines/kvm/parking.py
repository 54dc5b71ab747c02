"""What has a vCPU execute nothing: the local APIC is KVM's, so the vCPU waits inside KVM_RUN.

Down is spelled HALTED with IF clear, which no interrupt ends, but an INIT does. So is a guest's own HLT with interrupts
off, of which KVM says nothing. What the vCPU awaits is only known to the thread that runs it; others ask it by a kick.
An NMI would end HALTED all the same, and KVM spins when one is pending where a vCPU waits for a SIPI: it takes such an
NMI for an event, and the vCPU cannot. So NMIs wait here until the vCPU runs.
KVM heeds a SIPI in INIT_RECEIVED alone; an INIT turns UNINITIALIZED into that (kvm/lapic.c, kvm_apic_accept_events).
"""

from __future__ import annotations

import threading

from pvh.abi.x86 import RFLAGS_IF
from pvh.engines.kvm import ioctl as kvm
from pvh.engines.kvm import state as registers
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.engines.engine import Awaits

_APIC: dict[int, Awaits] = {kvm.MP_STATE_UNINITIALIZED: "init", kvm.MP_STATE_INIT_RECEIVED: "sipi"}
_RIP_AT, _RFLAGS_AT = 16 * 8, 17 * 8
# struct kvm_vcpu_events
_EVENTS_SIZE, _INTERRUPT_INJECTED_AT, _NMI_INJECTED_AT, _NMI_MASKED_AT = 64, 8, 12, 14
_BUSY = (0, 3, _INTERRUPT_INJECTED_AT, 11, _NMI_INJECTED_AT)  # exception injected or pending, shadow of STI or MOV SS
_ANSWER_SECONDS = 1.0  # a vCPU thread that is starved of host time this long is taken to be where it was


class Parking:
    """Where one vCPU stands. For its own thread outside KVM_RUN, but ask(), wait(), peek(), stands and ignore_sipi().

    stands  what it awaits: the truth while its thread is outside KVM_RUN
    """

    KEPT = ("stands", "_deaf", "_was", "_dozes_at", "_nmi")

    def __init__(self, fd: int, *, waits: bool) -> None:
        """Begin as KVM makes a vCPU: the first runs, others wait for an INIT."""
        self.stands: Awaits = "init" if waits else "nothing"
        self._fd = fd
        self._asked = self._deaf = False
        self._answered = threading.Event()
        self._was: tuple[int, int] | None = None  # RFLAGS.IF and MP state before park()
        self._dozes_at: int | None = None  # RIP
        self._nmi = False  # one waits for the vCPU to run

    def park(self) -> None:
        """Have KVM_RUN execute nothing. A HLT with interrupts off is over then."""
        stood = self.learn()
        if stood in ("nothing", "nmi"):
            state = kvm.MP_STATE_RUNNABLE if stood == "nmi" else self._mp_state()
            self._was = self._swap_flags(0) & RFLAGS_IF, state
            self._take_nmi_back()
            self._set_mp_state(kvm.MP_STATE_HALTED)
            self.stands = "resume"

    def resume(self) -> None:
        """Undo park(), unless an INIT did; or go on behind a HLT with interrupts off."""
        stood = self.learn()
        if stood == "resume" and self._was:
            interrupts, state = self._was
            self._was = None
            self._swap_flags(interrupts)
            self._set_mp_state(state)
        elif stood == "nmi":
            self._set_mp_state(kvm.MP_STATE_RUNNABLE)
        self.hand_nmi_over()

    def doze(self) -> None:
        """Have KVM_RUN wait for an interrupt, as in HLT."""
        if self.learn() == "nothing":
            self._dozes_at = self._rip_and_flags()[0]
            self._set_mp_state(kvm.MP_STATE_HALTED)

    def rouse(self) -> None:
        """Undo doze(), unless an interrupt did."""
        stood = self.learn()
        if self._dozes_at is None or self._rip_and_flags()[0] != self._dozes_at:
            return
        self._dozes_at = None
        if stood == "resume" and self._was:
            self._was = self._was[0], kvm.MP_STATE_RUNNABLE
        else:
            self._set_mp_state(kvm.MP_STATE_RUNNABLE)

    def nmi(self) -> None:
        """Make an NMI pending, now or once the vCPU runs."""
        self._nmi = True
        self.hand_nmi_over()

    def hand_nmi_over(self) -> None:
        """Let KVM have the NMI that waits, if the vCPU runs now.

        As one that is being delivered, for a request for one (KVM_NMI) cannot be taken back should it be parked now.
        """
        if not self._nmi or self.learn() != "nothing":
            return
        self._nmi = False
        events = self._events()
        if events[_NMI_INJECTED_AT] or events[_NMI_MASKED_AT]:
            kvm.must("an NMI", self._fd, kvm.NMI)  # for later, which only KVM knows
        else:
            events[_NMI_INJECTED_AT] = 1
            kvm.must("the pending events", self._fd, kvm.SET_VCPU_EVENTS, events)
            self._set_mp_state(kvm.MP_STATE_RUNNABLE)  # it may sleep in HLT

    def interrupt(self, vector: int) -> bool:
        """Have the vCPU take an interrupt now, past its local APIC; False when it takes none."""
        if self.learn() != "nothing" or not self._rip_and_flags()[1] & RFLAGS_IF:
            return False
        events = self._events()
        if any(events[at] for at in _BUSY):
            return False
        events[_INTERRUPT_INJECTED_AT : _INTERRUPT_INJECTED_AT + 3] = 1, vector, 0
        kvm.must("the pending events", self._fd, kvm.SET_VCPU_EVENTS, events)
        self._set_mp_state(kvm.MP_STATE_RUNNABLE)  # it may sleep in HLT
        self._dozes_at = None
        return True

    def forget(self) -> None:
        """Note that the vCPU was loaded anew."""
        self._was = self._dozes_at = None
        self._know("nothing")
        self.hand_nmi_over()

    def ran(self) -> None:
        """Note that the vCPU has executed something."""
        if self._asked or self.stands != "nothing":
            self._was = None
            self._know("nothing")
            self.hand_nmi_over()

    def learn(self) -> Awaits:
        """Find out what the vCPU awaits, and tell who asked."""
        state = self._mp_state()
        if self._deaf and state == kvm.MP_STATE_INIT_RECEIVED:
            state = kvm.MP_STATE_UNINITIALIZED
            self._set_mp_state(state)
        self._deaf = False
        return self._know(self._meaning(state))

    def peek(self) -> Awaits:
        """Return what the vCPU awaits, where its thread cannot enter KVM_RUN now. From any thread.

        KVM has the APIC take an INIT and a SIPI as it is asked (kvm_arch_vcpu_ioctl_get_mpstate): they may have come
        since the vCPU's own thread looked last. What it makes of them is its own to note.
        """
        awaits = _APIC.get(self._mp_state())
        if awaits == "sipi" and self._deaf:
            return "init"
        return awaits or ("nothing" if self.stands in _APIC.values() else self.stands)

    def sleeps(self) -> bool:
        """Tell whether it executes nothing before an interrupt or INIT; while no vCPU runs."""
        return self._mp_state() != kvm.MP_STATE_RUNNABLE

    def ask(self) -> None:
        """Have the next learn() or ran() answer. From any thread, which then kicks the vCPU's and waits."""
        self._answered.clear()
        self._asked = True

    def wait(self) -> None:
        """Wait for the answer to ask(): what stands says then."""
        self._answered.wait(_ANSWER_SECONDS)

    def ignore_sipi(self) -> None:
        """Have a vCPU that awaits a SIPI await an INIT instead, from the next learn() on. From any thread."""
        self._deaf = True
        if self.stands == "sipi":
            self.stands = "init"

    def _meaning(self, state: int) -> Awaits:
        if state != kvm.MP_STATE_HALTED:
            self._was = self._dozes_at = None
            return _APIC.get(state, "nothing")
        if self._was:
            return "resume"
        rip, flags = self._rip_and_flags()
        return "nothing" if flags & RFLAGS_IF or rip == self._dozes_at else "nmi"

    def _know(self, stands: Awaits) -> Awaits:
        self.stands = stands
        if self._asked:
            self._asked = False
            self._answered.set()
        return stands

    def _take_nmi_back(self) -> None:
        """Have an NMI that is being delivered wait here again."""
        events = self._events()
        if events[_NMI_INJECTED_AT]:
            events[_NMI_INJECTED_AT] = 0
            kvm.must("the pending events", self._fd, kvm.SET_VCPU_EVENTS, events)
            self._nmi = True

    def _events(self) -> bytearray:
        events = bytearray(_EVENTS_SIZE)
        kvm.must("reading the pending events", self._fd, kvm.GET_VCPU_EVENTS, events)
        return events

    def _rip_and_flags(self) -> tuple[int, int]:
        regs = self._regs()
        return kvm.U64.unpack_from(regs, _RIP_AT)[0], kvm.U64.unpack_from(regs, _RFLAGS_AT)[0]

    def _swap_flags(self, interrupts: int) -> int:
        """Set RFLAGS.IF; return RFLAGS as they were."""
        regs = self._regs()
        flags: int = kvm.U64.unpack_from(regs, _RFLAGS_AT)[0]
        kvm.U64.pack_into(regs, _RFLAGS_AT, flags & ~RFLAGS_IF | interrupts)
        kvm.must("the general registers", self._fd, kvm.SET_REGS, regs)
        return flags

    def _regs(self) -> bytearray:
        regs = bytearray(registers.REGS.size)
        kvm.must("reading the general registers", self._fd, kvm.GET_REGS, regs)
        return regs

    def _mp_state(self) -> int:
        state = bytearray(4)
        kvm.must("reading the run state", self._fd, kvm.GET_MP_STATE, state)
        return int(kvm.U32.unpack(state)[0])

    def _set_mp_state(self, state: int) -> None:
        kvm.must("the run state", self._fd, kvm.SET_MP_STATE, kvm.U32.pack(state))
