"""A domain's xenstore: page, port, store (facts/xen-abi.md, 10.1 step 10 and 11)."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

from pvh.abi import xenstore_wire as wire
from pvh.abi.hypercall import EVENT_CHANNEL_OP
from xen.guest import ARG, SPARE, Guest

TESTS = Path(__file__).resolve().parent.parent
PAGE = 0xFEFFC000
PORT = 1


def ask(guest: Guest, kind: int, payload: bytes) -> int:
    """Put a request into the ring and ring; return what the hypercall does."""
    (produced,) = guest.get("<I", PAGE + wire.REQ_PROD)
    data = struct.pack(wire.HEADER, kind, 5, 0, len(payload)) + payload
    assert produced + len(data) <= wire.RING_SIZE
    guest.ram.write(PAGE + produced, data)
    guest.put("<I", PAGE + wire.REQ_PROD, produced + len(data))
    return guest.op(EVENT_CHANNEL_OP, 4, "<I", PORT)


def answers(guest: Guest) -> bytes:
    """Read what came."""
    consumed, produced = guest.get("<II", PAGE + wire.RSP_CONS)
    assert produced <= wire.RING_SIZE
    guest.put("<I", PAGE + wire.RSP_CONS, produced)
    data = guest.ram.read(PAGE + wire.RSP + consumed, produced - consumed)
    assert data is not None
    return data


def reply(kind: int, payload: bytes) -> bytes:
    return struct.pack(wire.HEADER, kind, 5, 0, len(payload)) + payload


def event(path: str, token: str) -> bytes:
    payload = f"{path}\0{token}\0".encode()
    return struct.pack(wire.HEADER, wire.WATCH_EVENT, 0, 0, len(payload)) + payload


def test_the_ring_is_connected_and_says_what_it_can(guest: Guest) -> None:
    """xs_wire.h: XENSTORE_CONNECTED; XENSTORE_SERVER_FEATURE_RECONNECTION and _ERROR."""
    assert guest.get("<III", PAGE + wire.SERVER_FEATURES) == (
        wire.FEATURE_RECONNECTION | wire.FEATURE_ERROR,
        wire.CONNECTED,
        0,
    )


def test_a_guest_that_rings_is_answered_and_rung(guest: Guest) -> None:
    guest.domain.shared.map_at(SPARE >> 12)
    assert ask(guest, wire.READ, b"domid\0") == 0
    assert answers(guest) == reply(wire.READ, b"1")
    assert guest.get("<B", SPARE + 0x800) == (1 << PORT,)


def test_its_nodes_tell_of_it(guest: Guest) -> None:
    access = guest.domain.xenstore.access
    assert access.read("memory/static-max") == b"%d" % (guest.domain.image.plan.options.memory >> 10)
    assert access.children("cpu") == ("0", "1")
    assert (access.read("store/port"), access.read("store/ring-ref")) == (b"1", b"%d" % 0xFEFFC)
    assert (access.read("console/port"), access.read("console/ring-ref")) == (b"2", b"%d" % 0xFEFFF)
    vm = access.read("vm")
    assert vm == b"/vm/00000000-0000-0000-0000-000000000000"
    assert access.read(vm.decode() + "/name") == access.read("name")


def test_a_request_to_shut_down_goes_to_a_guest_that_watches_for_it(guest: Guest) -> None:
    """As `xl shutdown` does it: libxl_domain.c, libxl__domain_pvcontrol."""
    xenstore = guest.domain.xenstore
    assert not xenstore.request("poweroff")
    ask(guest, wire.WATCH, b"control/shutdown\0t\0")
    assert answers(guest) == reply(wire.WATCH, b"OK\0") + event("control/shutdown", "t")
    assert xenstore.request("poweroff")
    assert answers(guest) == event("control/shutdown", "t")
    ask(guest, wire.READ, b"control/shutdown\0")
    assert answers(guest) == reply(wire.READ, b"poweroff")
    ask(guest, wire.WRITE, b"control/shutdown\0")
    assert answers(guest) == event("control/shutdown", "t") + reply(wire.WRITE, b"OK\0")
    assert xenstore.access.read("control/shutdown") == b""


def test_a_guest_that_watches_something_else_is_not_asked(guest: Guest) -> None:
    ask(guest, wire.WATCH, b"control/sysrq\0t\0")
    assert not guest.domain.xenstore.request("poweroff")
    assert guest.domain.xenstore.access.read("control/shutdown") == b""


def test_the_host_is_told_what_the_guest_writes(guest: Guest) -> None:
    access = guest.domain.xenstore.access
    told: list[str] = []
    watch = access.watch("control", told.append)
    ask(guest, wire.WRITE, b"control/feature-poweroff\0" + b"1")
    ask(guest, wire.WRITE, b"data/x\0" + b"1")
    access.unwatch(watch)
    ask(guest, wire.WRITE, b"control/feature-reboot\0" + b"1")
    assert told == ["/local/domain/1/control/feature-poweroff"]


def test_the_host_writes_and_removes(guest: Guest) -> None:
    access = guest.domain.xenstore.access
    access.write("a/b", "text")
    ask(guest, wire.READ, b"a/b\0")
    assert answers(guest) == reply(wire.READ, b"text")  # permissions are inherited: the guest may read
    assert access.remove("a")
    assert not access.remove("a")
    assert (access.read("a/b"), access.permissions("a")) == (None, None)


def test_a_guest_that_closed_its_port_is_not_rung(guest: Guest) -> None:
    ask(guest, wire.WATCH, b"control/shutdown\0t\0")
    assert guest.op(EVENT_CHANNEL_OP, 3, "<I", PORT) == 0
    assert guest.op(EVENT_CHANNEL_OP, 7, "<II", 0, 0) == 0
    assert guest.get("<II", ARG)[1] == PORT  # an IPI's now
    guest.domain.shared.map_at(SPARE >> 12)
    assert guest.domain.xenstore.request("reboot")
    assert guest.get("<B", SPARE + 0x800) == (0,)


def test_a_guest_that_uses_no_xenstore_does_not_pay_for_one() -> None:
    script = """
import sys
from xen.guest import Guest
guest = Guest()
print(*(name for name in sys.modules if "xenstore" in name))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=TESTS)
    assert done.stdout.split() == ["pvh.xen.xenstore"]
