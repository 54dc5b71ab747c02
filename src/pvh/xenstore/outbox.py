"""What a client is still to be sent."""

from __future__ import annotations

import struct
from collections import deque

from pvh.abi.xenstore_wire import HEADER, WATCH_EVENT


class Outbox:
    """Messages in order, taken as a stream of bytes.

    outstanding  replies that are not wholly taken
    memory       bytes that are not taken, and those of the message that is being taken
    """

    KEPT = ("_queue", "_events", "_taken", "outstanding", "memory")

    def __init__(self) -> None:
        self._queue: deque[tuple[bytes, bool]] = deque()  # and whether it is an event
        self._events: set[bytes] = set()
        self._taken = 0  # of the first
        self.outstanding = 0
        self.memory = 0

    def reply(self, kind: int, req_id: int, tx_id: int, payload: bytes) -> None:
        """Queue a reply."""
        self.outstanding += 1
        self._append(struct.pack(HEADER, kind, req_id, tx_id, len(payload)) + payload, event=False)

    def event(self, payload: bytes) -> None:
        """Queue a watch event, unless the same one is waiting: it tells no more (core.c, send_event)."""
        message = struct.pack(HEADER, WATCH_EVENT, 0, 0, len(payload)) + payload
        if message not in self._events:
            self._events.add(message)
            self._append(message, event=True)

    def take(self, room: int) -> bytes:
        """Return the next bytes, at most room."""
        pieces: list[bytes] = []
        while room and self._queue:
            message, event = self._queue[0]
            piece = message[self._taken : self._taken + room]
            pieces.append(piece)
            room -= len(piece)
            self._taken += len(piece)
            if self._taken == len(message):
                self._drop_first(message, event=event)
        return b"".join(pieces)

    def clear(self) -> None:
        """Forget all."""
        self._queue.clear()
        self._events.clear()
        self._taken = self.outstanding = self.memory = 0

    def _append(self, message: bytes, *, event: bool) -> None:
        self._queue.append((message, event))
        self.memory += len(message)

    def _drop_first(self, message: bytes, *, event: bool) -> None:
        self._queue.popleft()
        self._taken = 0
        self.memory -= len(message)
        if event:
            self._events.discard(message)
        else:
            self.outstanding -= 1
