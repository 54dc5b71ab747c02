"""The nodes of a domU against those of one that real Xen 4.17's libxl made (tests/oracle/logs, xenstore-ls)."""

from __future__ import annotations

import re

import pytest

from oracle.recorded import log_of
from pvh.xenstore.libxl import Domu, add_domain
from pvh.xenstore.paths import child
from pvh.xenstore.store import Store
from xenstore.xsclient import HOME

# What depends on the host, and on names people give.
VARIES = {f"{HOME}/vm", f"{HOME}/name", f"{HOME}/console/tty"}


def made() -> Store:
    store = Store(1)
    add_domain(store, Domu(1, "uuid", "name", 1, 32768, (0xFEFFC, 1), (0xFEFFF, 2)))
    return store


def listed(store: Store, path: str) -> list[tuple[str, str]]:
    """List as xenstore-ls -f does."""
    node = store.tree.get(path)
    assert node is not None
    below = [entry for name in node.children for entry in listed(store, child(path, name))]
    return [(path, node.value.decode()), *below]


def test_a_domains_nodes_are_those_libxl_makes() -> None:
    theirs = dict(re.findall(r'^(/\S+) = "(.*)"$', log_of("hello").parts["xenstore"], re.MULTILINE))
    ours = dict(listed(made(), HOME)[1:])
    assert {path: value for path, value in ours.items() if path not in VARIES} == {
        path: value for path, value in theirs.items() if path not in VARIES
    }
    assert ours.keys() >= VARIES


@pytest.mark.parametrize(
    ("path", "perms"),
    [
        ("", "n0 r1"),
        ("domid", "n0 r1"),
        ("cpu/0/availability", "n0 r1"),
        ("memory/target", "n0 r1"),
        ("device", "n0 r1"),
        ("device/suspend/event-channel", "n1"),
        ("control", "n0 r1"),
        ("control/platform-feature-xs_reset_watches", "n0 r1"),
        ("control/shutdown", "n1"),
        ("control/feature-poweroff", "n1"),
        ("control/sysrq", "n1"),
        ("data", "n1"),
        ("drivers", "n1"),
        ("feature", "n1"),
        ("attr", "n1"),
        ("error", "n1"),
        ("store/ring-ref", "n0 r1"),
        ("console/port", "n0 r1"),
    ],
)
def test_what_a_guest_may_write_is_its_own(path: str, perms: str) -> None:
    """libxl_create.c, libxl__domain_make: roperm and rwperm."""
    node = made().tree.get(f"{HOME}/{path}".rstrip("/"))
    assert node is not None
    assert " ".join(map(str, node.permissions)) == perms


def test_each_vcpu_is_online() -> None:
    store = Store(3)
    add_domain(store, Domu(3, "uuid", "name", 4, 1024, (1, 1), (2, 2)))
    cpus = [entry for entry in listed(store, "/local/domain/3/cpu") if entry[1]]
    assert cpus == [(f"/local/domain/3/cpu/{number}/availability", "online") for number in range(4)]


def test_a_guest_owns_little() -> None:
    """So that nearly all of its quota is its own."""
    assert made().tree.owned(1) == 11
