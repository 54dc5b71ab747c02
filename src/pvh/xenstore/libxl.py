"""The nodes that libxl makes for a PVH domU (tools/libs/light/libxl_{create,dom,console,device}.c, Xen 4.17).

tests/oracle/logs has what xenstore-ls shows of real ones.
"""

from __future__ import annotations

from collections.abc import Iterator

from pvh.hints import TYPE_CHECKING
from pvh.record import dataclass
from pvh.xenstore.paths import domain_path
from pvh.xenstore.permissions import READ, Permission

if TYPE_CHECKING:
    from pvh.xenstore.permissions import Permissions
    from pvh.xenstore.store import Store

# What a guest may write, and how the node is called below the domain's own.
_GUESTS_OWN = (
    "device/suspend/event-channel",
    "control/shutdown",
    "control/feature-poweroff",
    "control/feature-reboot",
    "control/feature-suspend",
    "control/sysrq",
    "data",
    "drivers",
    "feature",
    "attr",
    "error",
)


@dataclass(frozen=True, slots=True)
class Domu:
    """What the nodes tell. memory: KiB. store, console: frame and port of each ring."""

    domid: int
    uuid: str
    name: str
    vcpus: int
    memory: int
    store: tuple[int, int]
    console: tuple[int, int]


def add_domain(store: Store, domu: Domu) -> None:
    """Make the nodes of a domain."""
    readable: Permissions = (Permission(0), Permission(domu.domid, READ))
    home = domain_path(domu.domid)
    backend = f"{domain_path(0)}/backend/console/{domu.domid}/0"
    for root in (home, f"/vm/{domu.uuid}", backend):
        store.mkdir(0, store.tree, root)
        store.set_permissions(0, store.tree, root, readable)
    # Nodes made below these inherit their permissions.
    for path, value in _nodes(domu, backend):
        store.write(0, store.tree, f"{home}/{path}", value.encode())
    for path in _GUESTS_OWN:
        store.set_permissions(0, store.tree, f"{home}/{path}", (Permission(domu.domid),))
    for path, value in (("name", domu.name), ("uuid", domu.uuid)):
        store.write(0, store.tree, f"/vm/{domu.uuid}/{path}", value.encode())
    for path, value in _console_backend(domu, home):
        store.write(0, store.tree, f"{backend}/{path}", value.encode())


def _nodes(domu: Domu, backend: str) -> Iterator[tuple[str, str]]:
    """Yield what is below the domain's own node, in the order libxl makes it."""
    yield "vm", f"/vm/{domu.uuid}"
    yield "name", domu.name
    for vcpu in range(domu.vcpus):
        yield f"cpu/{vcpu}/availability", "online"
    yield "memory/static-max", str(domu.memory)
    yield "memory/target", str(domu.memory)
    yield "memory/videoram", "0"
    for path in _GUESTS_OWN:
        yield path, ""
    yield "control/platform-feature-multiprocessor-suspend", "1"
    yield "control/platform-feature-xs_reset_watches", "1"
    yield "domid", str(domu.domid)
    yield "store/port", str(domu.store[1])
    yield "store/ring-ref", str(domu.store[0])
    yield "console/backend", backend
    yield "console/backend-id", "0"
    yield "console/limit", "1048576"
    yield "console/type", "xenconsoled"
    yield "console/output", "pty"
    yield "console/tty", ""  # the daemon's terminal: there is none
    yield "console/port", str(domu.console[1])
    yield "console/ring-ref", str(domu.console[0])


def _console_backend(domu: Domu, home: str) -> Iterator[tuple[str, str]]:
    yield "frontend", f"{home}/console"
    yield "frontend-id", str(domu.domid)
    yield "online", "1"
    yield "state", "1"
    yield "protocol", "vt100"
