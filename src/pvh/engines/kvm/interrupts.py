"""Interrupts that a vCPU does not take yet: held here, and tried again.

Edge interrupts into the kernel's local APICs are kept where KVM would drop them.

Xen sets the vector's request bit whether the APIC is enabled or not, and INIT leaves it alone in a vCPU that was not
started yet (xen/arch/x86/hvm/vlapic.c, vlapic_set_irq and vlapic_init_sipi_one). Guests count on it: Linux names its
upcall vector before it enables the APIC, and an upcall that is lost leaves evtchn_upcall_pending set, so that none
follows. KVM_SIGNAL_MSI to such an APIC does nothing and says so.
Callback vectors pass by the APIC, and KVM does not say when a vCPU enables interrupts whose APIC masks LINT0 (vcpu.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from pvh.engines.kvm import ioctl as kvm

_FIRST_WAIT = 0.001  # seconds; doubled after each try without success
_LONGEST_WAIT = 0.064


class Interrupts:
    """What waits to be delivered in one virtual machine. Methods may be called from any thread."""

    def __init__(self, vm: int) -> None:
        """Use a virtual machine's descriptor until close()."""
        self._vm = vm
        self._held: dict[tuple[int, int | None], Callable[[], bool]] = {}
        self._lock = threading.Lock()
        self._trying = threading.Lock()
        self._news = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def send(self, apic_id: int, vector: int) -> None:
        """Request an interrupt of the local APIC with this id, now or as soon as it takes any."""
        if not self._deliver(apic_id, vector):
            self.hold((apic_id, vector), partial(self._deliver, apic_id, vector))

    def hold(self, key: tuple[int, int | None], attempt: Callable[[], bool]) -> None:
        """Try something again until it is so, once for each key: an APIC's id and a vector, or None, its callback."""
        with self._lock:
            self._held[key] = attempt
            if self._thread is None:
                self._thread = threading.Thread(target=self._retry, daemon=True)
                self._thread.start()
        self._news.set()

    def still(self) -> threading.Lock:
        """Return a lock while which is held nothing is tried."""
        return self._trying

    @property
    def held(self) -> list[tuple[int, int]]:
        """The APIC ids and vectors that wait; what is called back is no part of it. In still(), here and below."""
        with self._lock:
            return [(apic_id, vector) for apic_id, vector in self._held if vector is not None]

    @held.setter
    def held(self, held: list[tuple[int, int]]) -> None:
        with self._lock:
            self._held.clear()
        for apic_id, vector in held:
            self.hold((apic_id, vector), partial(self._deliver, apic_id, vector))

    def close(self) -> None:
        """Stop trying; nothing uses the descriptor afterwards."""
        self._closed = True
        self._news.set()
        if self._thread is not None:
            self._thread.join()

    def _deliver(self, apic_id: int, vector: int) -> bool:
        """Tell whether the APIC took it. EPERM: none has the id, because the guest switched it off altogether."""
        try:
            return kvm.call(self._vm, kvm.SIGNAL_MSI, kvm.MSI.pack(0xFEE00000 | apic_id << 12, 0, vector, 0)) > 0
        except PermissionError:
            return False

    def _retry(self) -> None:
        """Body of the thread: it sleeps until something is held, then tries, ever more rarely."""
        wait = _FIRST_WAIT
        while True:
            self._news.wait(wait if self._held else None)
            wait = _FIRST_WAIT if self._news.is_set() else min(2 * wait, _LONGEST_WAIT)
            self._news.clear()
            if self._closed:
                return
            with self._trying:
                self._try()

    def _try(self) -> None:
        with self._lock:
            waiting = tuple(self._held.items())
        for key, attempt in waiting:
            if attempt():
                with self._lock:
                    self._held.pop(key, None)
