"""A domain's xenstore: a ring in a special page, a port to ring with, and the store, made when it is first used."""

from __future__ import annotations

from pvh.abi.hvm_param import CONSOLE_EVTCHN, CONSOLE_PFN, STORE_EVTCHN, STORE_PFN
from pvh.abi.x86 import PAGE_SIZE
from pvh.hints import TYPE_CHECKING, Any
from pvh.kept import apply, capture
from pvh.plan.layout import SPECIAL_PAGES

if TYPE_CHECKING:
    from pvh.devices.xenstore import XenstoreRing
    from pvh.xen.domain import Domain
    from pvh.xenstore.libxl import Domu
    from pvh.xenstore.store import Store
    from pvh.xenstore.toolstack import Access

XENSTORE_PAGE = SPECIAL_PAGES[4]

_SHUTDOWN = "control/shutdown"
_SERVER_FEATURES, _FEATURES = 2064, 1 | 2  # abi.xenstore_wire: reconnection, error; most guests never look


class Xenstore:
    """The xenstore of one domain. Its port is there from the start; most of it only once somebody uses it."""

    def __init__(self, domain: Domain) -> None:
        """Allocate the port, and tell the guest of it and of the page."""
        self._domain = domain
        page = domain.ram.view(XENSTORE_PAGE.start, XENSTORE_PAGE.size)
        assert page is not None
        self._page = page
        page[_SERVER_FEATURES] = _FEATURES
        self._port = domain.events.connect("xenstore", self.serve)
        domain.params.values |= {STORE_PFN: XENSTORE_PAGE.start // PAGE_SIZE, STORE_EVTCHN: self._port}
        self._opened: tuple[XenstoreRing, Access] | None = None
        self._store: Store | None = None

    def capture(self) -> Any:
        """Return what is kept of it; None while nobody has used it."""
        return (capture(self._opened[0]), capture(self._store)) if self._opened else None

    def apply(self, state: Any) -> None:
        """Go on from what capture() returned. Who watches from the host's side goes on watching."""
        if state is None:
            self._opened = self._store = None
            return
        ring, _ = self._open()
        apply(ring, state[0])
        apply(self._store, state[1])

    def serve(self) -> None:
        """Answer what the guest sent: it rang. The caller holds the domain's lock."""
        self._open()[0].serve()

    @property
    def access(self) -> Access:
        """The store, from outside."""
        with self._domain.lock:
            return self._open()[1]

    def request(self, what: str) -> bool:
        """Ask the guest to shut down: poweroff, reboot, halt or suspend; return whether it watches for that.

        Written as libxl does, to control/shutdown (tools/libs/light/libxl_domain.c); a guest that obeys empties it.
        """
        with self._domain.lock:
            if self._opened is None or not self.access.is_watched(_SHUTDOWN):
                return False
            self.access.write(_SHUTDOWN, what)
            return True

    def _open(self) -> tuple[XenstoreRing, Access]:
        if self._opened is None:
            from pvh.devices.xenstore import XenstoreRing
            from pvh.xenstore.libxl import add_domain
            from pvh.xenstore.service import Service
            from pvh.xenstore.store import Store
            from pvh.xenstore.toolstack import Access

            store = Store(self._domain.domid)
            add_domain(store, self._describe())
            ring = XenstoreRing(self._page, store.guest, Service(store).answer, self._notify)
            self._store = store
            self._opened = ring, Access(store, self._domain.lock, ring.push)
        return self._opened

    def _notify(self) -> None:
        self._domain.events.signal("xenstore")

    def _describe(self) -> Domu:
        from pvh.xenstore.libxl import Domu

        domain, params = self._domain, self._domain.params.values
        digits = domain.uuid.hex()
        return Domu(
            domid=domain.domid,
            uuid="-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])),
            name="pvh",
            vcpus=domain.vcpus,
            memory=domain.image.plan.options.memory >> 10,
            store=(params[STORE_PFN], self._port),
            console=(params[CONSOLE_PFN], params[CONSOLE_EVTCHN]),
        )
