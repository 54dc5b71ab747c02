"""The back end of the PV console ring (xen/include/public/io/console.h): what the guest writes comes out."""

from __future__ import annotations

from collections.abc import Callable

OUT = 1024  # offset of out[2048]; in[1024] is before it
OUT_SIZE = 2048
OUT_CONS = 3080
OUT_PROD = 3084
CONNECTION = 3088  # 0 connected, 1 disconnected


class Console:
    """Drains the ring of one console page. Indexes run freely; what the guest claims is bounded by the ring's size."""

    def __init__(self, page: memoryview, send: Callable[[bytes], None]) -> None:
        """Connect to a page of guest memory (4096 bytes, writable)."""
        self._page = page
        self._send = send
        page[CONNECTION] = 0

    def drain(self) -> bool:
        """Take what the guest produced; return whether there was any."""
        consumed = int.from_bytes(self._page[OUT_CONS : OUT_CONS + 4], "little")
        produced = int.from_bytes(self._page[OUT_PROD : OUT_PROD + 4], "little")
        waiting = min(produced - consumed & 0xFFFFFFFF, OUT_SIZE)
        if not waiting:
            return False
        start = consumed % OUT_SIZE
        ring = self._page[OUT : OUT + OUT_SIZE]
        self._send(bytes(ring[start : start + waiting]) + bytes(ring[: max(0, start + waiting - OUT_SIZE)]))
        self._page[OUT_CONS : OUT_CONS + 4] = produced.to_bytes(4, "little")
        return True
