"""The back end of the PV console ring (xen/include/public/io/console.h), both directions."""

from __future__ import annotations

from collections.abc import Callable

IN_SIZE = 1024  # in[] is at offset 0
OUT = 1024  # offset of out[2048]
OUT_SIZE = 2048
IN_CONS = 3072
IN_PROD = 3076
OUT_CONS = 3080
OUT_PROD = 3084
CONNECTION = 3088  # 0 connected, 1 disconnected


class Console:
    """Both rings of one console page. Indexes run freely; what the guest claims is bounded by a ring's size."""

    def __init__(self, page: memoryview, send: Callable[[bytes], None], take: Callable[[int], bytes]) -> None:
        """Connect to a page of guest memory (4096 bytes, writable).

        send  takes what the guest says
        take  gives up to so many bytes for the guest, none when none wait
        """
        self._page = page
        self._send = send
        self._take = take
        page[CONNECTION] = 0

    def drain(self) -> bool:
        """Take what the guest produced; return whether there was any."""
        consumed, produced = self._index(OUT_CONS), self._index(OUT_PROD)
        waiting = min(produced - consumed & 0xFFFFFFFF, OUT_SIZE)
        if not waiting:
            return False
        start = consumed % OUT_SIZE
        ring = self._page[OUT : OUT + OUT_SIZE]
        self._send(bytes(ring[start : start + waiting]) + bytes(ring[: max(0, start + waiting - OUT_SIZE)]))
        self._page[OUT_CONS : OUT_CONS + 4] = produced.to_bytes(4, "little")
        return True

    def fill(self) -> bool:
        """Give the guest as much input as its ring has room for; return whether there was any.

        The producer index moves last, when the bytes are there: a guest may be reading on another processor.
        """
        produced = self._index(IN_PROD)
        unread = produced - self._index(IN_CONS) & 0xFFFFFFFF
        data = self._take(IN_SIZE - unread) if unread < IN_SIZE else b""
        if not data:
            return False
        start = produced % IN_SIZE
        first = data[: IN_SIZE - start]
        self._page[start : start + len(first)] = first
        self._page[: len(data) - len(first)] = data[len(first) :]
        self._page[IN_PROD : IN_PROD + 4] = (produced + len(data) & 0xFFFFFFFF).to_bytes(4, "little")
        return True

    def _index(self, offset: int) -> int:
        return int.from_bytes(self._page[offset : offset + 4], "little")
