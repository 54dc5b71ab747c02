"""The back end of the xenstore ring (docs/misc/xenstore-ring.txt; tools/xenstored/domain.c, readchn and writechn)."""

from __future__ import annotations

import struct
from collections.abc import Callable

from pvh.abi import xenstore_wire as wire
from pvh.hints import TYPE_CHECKING
from pvh.xenstore.limits import OUTSTANDING

if TYPE_CHECKING:
    from pvh.xenstore.connection import Connection

_WRAP = 0xFFFFFFFF


class XenstoreRing:
    """Carries messages between one page of guest memory and the store.

    What a guest writes there is believed as far as it is possible: a message longer than the protocol's, or indexes
    further apart than the ring is long, end the connection, with the reason in the page; the guest may reconnect.
    """

    KEPT = ("_partial", "_broken")

    def __init__(
        self,
        page: memoryview,
        guest: Connection,
        answer: Callable[[int, int, int, bytes], None],
        notify: Callable[[], None],
    ) -> None:
        """Connect to a page (4096 bytes, writable).

        answer  carries a request out: type, req_id, tx_id, payload
        notify  tells the guest that the ring has changed
        """
        self._page = page
        self._guest = guest
        self._answer = answer
        self._notify = notify
        self._partial = bytearray()  # a message that is not all there yet
        self._broken = False

    def serve(self) -> None:
        """Take the requests that are there now, and send what there is room for.

        What the guest adds meanwhile waits for its next notification, and what becomes of its indexes is not looked at
        again: so this ends, whatever the guest does.
        """
        if self._get(wire.CONNECTION) == wire.RECONNECT:
            self._reconnect()
        if self._broken:
            return
        moved = self._send()
        if self._take_requests() or moved or self._broken:
            self._notify()

    def push(self) -> None:
        """Send what came up outside of a request, if there is room; the guest may be told for nothing."""
        if not self._broken:
            self._send()
            self._notify()

    def _take_requests(self) -> bool:
        """Take what is in the ring now while the guest takes replies; return whether it was anything."""
        first = consumed = self._get(wire.REQ_CONS)
        waiting = self._get(wire.REQ_PROD) - consumed & _WRAP
        if waiting > wire.RING_SIZE:
            self._break(wire.ERROR_RINGIDX)
        while waiting and not self._broken and self._guest.outbox.outstanding < OUTSTANDING:
            count = self._receive(consumed, waiting)
            consumed, waiting = consumed + count, waiting - count
            self._send()
        return consumed != first

    def _receive(self, consumed: int, waiting: int) -> int:
        """Take what completes a header or a message, or as much of it as is there; return how many bytes that were."""
        count = min(waiting, self._missing())
        self._partial += self._copy_out(wire.REQ + consumed % wire.RING_SIZE, count)
        self._set(wire.REQ_CONS, consumed + count)
        if len(self._partial) >= wire.HEADER_SIZE:
            self._consider()
        return count

    def _missing(self) -> int:
        """Return how many bytes the header, or the message, lacks."""
        if len(self._partial) < wire.HEADER_SIZE:
            return wire.HEADER_SIZE - len(self._partial)
        return wire.HEADER_SIZE + self._header()[3] - len(self._partial)

    def _header(self) -> tuple[int, int, int, int]:
        kind, req_id, tx_id, length = struct.unpack_from(wire.HEADER, self._partial)
        return kind, req_id, tx_id, length

    def _consider(self) -> None:
        """Have a message answered if it is all there."""
        kind, req_id, tx_id, length = self._header()
        if length > wire.PAYLOAD_MAX:
            self._break(wire.ERROR_PROTO)
        elif not self._missing():
            payload = bytes(self._partial[wire.HEADER_SIZE :])
            self._partial.clear()
            self._answer(kind, req_id, tx_id, payload)

    def _send(self) -> bool:
        """Send as much as there is room for; return whether it was anything."""
        consumed, produced = self._get(wire.RSP_CONS), self._get(wire.RSP_PROD)
        unread = produced - consumed & _WRAP
        if unread > wire.RING_SIZE:
            self._break(wire.ERROR_RINGIDX)
            return False
        data = self._guest.outbox.take(wire.RING_SIZE - unread)
        if data:
            start = produced % wire.RING_SIZE
            first = min(len(data), wire.RING_SIZE - start)
            self._page[wire.RSP + start : wire.RSP + start + first] = data[:first]
            self._page[wire.RSP : wire.RSP + len(data) - first] = data[first:]
            self._set(wire.RSP_PROD, produced + len(data))
        return bool(data)

    def _copy_out(self, offset: int, count: int) -> bytes:
        """Return bytes of the request ring, which may wrap."""
        first = min(count, wire.REQ + wire.RING_SIZE - offset)
        return bytes(self._page[offset : offset + first]) + bytes(self._page[wire.REQ : wire.REQ + count - first])

    def _break(self, reason: int) -> None:
        """End the connection, as xenstored's ignore_connection."""
        self._forget()
        self._broken = True
        self._set(wire.ERROR_FIELD, reason)

    def _reconnect(self) -> None:
        """Begin anew with empty rings: the guest waits until `connection` says so."""
        self._forget()
        self._broken = False
        for index in (wire.REQ_CONS, wire.REQ_PROD, wire.RSP_CONS, wire.RSP_PROD):
            self._set(index, 0)
        self._set(wire.ERROR_FIELD, wire.ERROR_NONE)
        self._set(wire.CONNECTION, wire.CONNECTED)
        self._notify()

    def _forget(self) -> None:
        self._partial.clear()
        self._guest.reset()

    def _get(self, offset: int) -> int:
        return int.from_bytes(self._page[offset : offset + 4], "little")

    def _set(self, offset: int, value: int) -> None:
        self._page[offset : offset + 4] = (value & _WRAP).to_bytes(4, "little")
