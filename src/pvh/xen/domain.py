"""Domain: what Xen keeps about one guest, independent of the engine that runs it."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable

from pvh.abi.errno import EPERM, ESRCH
from pvh.abi.event_channel import VIRQ_TIMER
from pvh.abi.grant_table import REF_CONSOLE, REF_XENSTORE
from pvh.abi.hvm_param import CONSOLE_EVTCHN, CONSOLE_PFN
from pvh.abi.hypercall import DOMID_SELF
from pvh.abi.memory import E820_ENTRY
from pvh.abi.sched import SHUTDOWN_WATCHDOG
from pvh.abi.x86 import PAGE_SIZE
from pvh.devices.console import Console
from pvh.hints import TYPE_CHECKING, Any
from pvh.kept import keep, put_back
from pvh.plan.layout import SPECIAL_PAGES
from pvh.xen.clock import Clock
from pvh.xen.events import Events
from pvh.xen.grants import Grants
from pvh.xen.host import BACKEND_DOMID, DOMID
from pvh.xen.params import Params
from pvh.xen.physmap import Physmap
from pvh.xen.shared_info import SharedInfo
from pvh.xen.sleepers import POLL, Sleepers
from pvh.xen.timers import Timers
from pvh.xen.vcpu import Vcpus
from pvh.xen.xenstore import XENSTORE_PAGE, Xenstore

if TYPE_CHECKING:
    from pvh.build.image import Image
    from pvh.xen.host import Host
CONSOLE_PAGE = SPECIAL_PAGES[7]


class Domain:
    """A PVH domU.

    console   takes what the guest says through console_io and the PV console
    shutdown  reason of sched_op(SHUTDOWN_*), None while it runs
    lock      held by whoever changes the domain
    """

    KEPT = (
        "shutdown", "shutdown_code", "watchdogs", "memory_map", "clock", "grants", "shared", "physmap", "sleepers",
        "events", "params", "xenstore", "upcall_vectors", "processors", "timers",
    )  # fmt: skip

    domid = DOMID
    uuid = bytes(16)

    def __init__(self, image: Image, host: Host, console: Callable[[bytes], None]) -> None:
        self.image = image
        self.ram = image.ram
        self.host = host
        self.console = console
        self.vcpus = image.plan.options.vcpus
        self.lock = threading.RLock()
        self.shutdown: int | None = None
        self.shutdown_code: int | None = None
        self.watchdogs: set[int] = set()
        self.memory_map = b"".join(struct.pack(E820_ENTRY, e.addr, e.size, e.type) for e in image.plan.memory_map)
        self.clock = Clock(host)
        self.physmap = Physmap(self.ram, image.plan.ram, host.back)
        self.shared = SharedInfo(self.physmap, self.clock, self.vcpus)
        self.grants = Grants(self.physmap)
        self.sleepers = Sleepers(self)
        self.events = Events(self.shared, self.call_up, self.sleepers.port_pending)
        self.params = Params(self)
        self.xenstore = Xenstore(self)  # port 1 is its, port 2 the console's, as with libxl
        self._connect_console()
        self.upcall_vectors: dict[int, int] = {}
        self.processors = Vcpus(self)
        self.timers = Timers(host, self.clock.now, self.processors, self._raise_timer)

    def capture(self) -> dict[str, Any]:
        """Return what is kept of the domain; its memory is not in it. No vCPU runs."""
        with self.lock:
            return keep(self) | {"alarms": self.timers.alarms}

    def apply(self, state: dict[str, Any]) -> None:
        """Go on from what capture() returned. The wall clock is right."""
        with self.lock:
            put_back(self, state)
            self.physmap.place((self.shared.page, *self.grants.frames))
            for vcpu, name, deadline in state["alarms"]:
                self.timers.set_alarm(vcpu, name, deadline, self.alarm(vcpu, name))
            self.clock.wallclock_ns = self.host.wallclock() - self.clock.now()
            self.shared.refresh()
            self.assert_callback()

    def alarm(self, vcpu: int, name: str) -> Callable[[], None]:
        """Return what an alarm of that name does: the end of a poll, or of the guest's patience with itself."""
        return (lambda: self.sleepers.wake(vcpu)) if name == POLL else self.watchdog_fired

    def is_own(self, domid: int) -> bool:
        """Whether a domain id means this domain."""
        return domid in (DOMID_SELF, self.domid)

    def refuse(self, domid: int) -> int:
        """Return 0 for this domain, -EPERM for domain 0, which is there but not to be touched, -ESRCH for others."""
        if self.is_own(domid):
            return 0
        return -EPERM if domid == BACKEND_DOMID else -ESRCH

    @property
    def running(self) -> bool:
        """Whether the guest has not ended itself, and the host has not ended it."""
        return self.shutdown is None and not self.host.stopping

    def shut_down(self, reason: int, why: str | None = None, vcpu: int | None = None) -> None:
        """End the domain, for a SHUTDOWN_* reason; the first counts. why: a sentence, if no sched_op asked for it."""
        if self.shutdown is None:
            reason = reason if self.shutdown_code is None else self.shutdown_code
            self.shutdown = reason
            self.host.end_domain(reason, why, vcpu)

    def apic_init(self, vcpu: int) -> None:
        """Take an INIT that a local APIC sent a vCPU (asserted: a level-triggered de-assertion is none)."""
        with self.lock:
            self.processors.request(vcpu, "init")

    def apic_sipi(self, vcpu: int, vector: int) -> None:
        """Take a SIPI that a local APIC sent a vCPU."""
        with self.lock:
            self.processors.sipi(vcpu, vector)

    def halt_for_good(self, vcpu: int) -> None:
        """Take a vCPU that halted with interrupts off down: it goes on behind the HLT if another brings it up again."""
        with self.lock:
            self.processors.request(vcpu, "halt")

    def note_runstate(self, vcpu: int, state: int) -> None:
        """Note that a vCPU runs, waits for the host (RUNSTATE_RUNNABLE), or sleeps (RUNSTATE_BLOCKED).

        No news of one that is down: it was taken down before its thread could say so.
        """
        with self.lock:
            if self.processors[vcpu].stage == "up":
                self.enter_runstate(vcpu, state)

    def enter_runstate(self, vcpu: int, state: int) -> None:
        """Have a vCPU's runstate change, and its periodic timer go by it."""
        self.processors[vcpu].runstate.change(state, self.clock.now())
        self.timers.runstate_changed(vcpu)

    def call_up(self, vcpu: int) -> None:
        """Interrupt a vCPU whose evtchn_upcall_pending was set."""
        vector = self.upcall_vectors.get(vcpu)
        if vector is not None:
            self.host.raise_vector(vcpu, vector)
        if self.params.callback_vector is not None:
            self.host.inject(vcpu, self.params.callback_vector)
        self.sleepers.wake(vcpu)

    def assert_callback(self) -> None:
        """Interrupt every vCPU whose upcall waited for a callback vector: on Xen that interrupt is a level, no edge."""
        for vcpu in range(self.vcpus):
            if self.params.callback_vector is not None and self.events.wants_upcall(vcpu):
                self.host.inject(vcpu, self.params.callback_vector)

    def serve_console(self) -> None:
        """Take what the guest left in its console ring, give it what was typed, and tell it if there was either."""
        said, typed = self._console.drain(), self._console.fill()
        if said or typed:
            self.events.signal("console")

    def _connect_console(self) -> None:
        """Give the guest a console as libxl does: a ring in a special page, and a port to ring with."""
        place = CONSOLE_PAGE
        page = self.ram.view(place.start, place.size)
        assert page is not None
        self._console = Console(page, self.console, self.host.typed)
        port = self.events.connect("console", self.serve_console)
        self.params.values |= {CONSOLE_PFN: place.start // PAGE_SIZE, CONSOLE_EVTCHN: port}
        self.grants.permit(REF_CONSOLE, BACKEND_DOMID, place.start // PAGE_SIZE)
        self.grants.permit(REF_XENSTORE, BACKEND_DOMID, XENSTORE_PAGE.start // PAGE_SIZE)

    def expire(self, vcpu: int) -> None:
        """Fire the vCPU's timers whose time has come; ask for the call again for the others."""
        with self.lock:
            self.timers.look(vcpu)

    def watchdog_fired(self) -> None:
        """Shut down for want of a sign of life (SCHEDOP_watchdog)."""
        self.shut_down(SHUTDOWN_WATCHDOG, "the watchdog that the guest started was not set anew in time")

    def _raise_timer(self, vcpu: int) -> None:
        self.events.raise_virq(vcpu, VIRQ_TIMER)
