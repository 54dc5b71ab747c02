"""I/O ports: who answers which, and what an unclaimed one gives."""

from __future__ import annotations

from collections.abc import Callable

Read = Callable[[int, int], int]  # (port, size in bytes) -> value
Write = Callable[[int, int, int], None]  # (port, size in bytes, value)


class Ports:
    """A table of ports. Unclaimed reads give all ones, writes are dropped (Xen's null handler, hvm/emulate.c)."""

    def __init__(self) -> None:
        self._reads: dict[int, Read] = {}
        self._writes: dict[int, Write] = {}

    def claim(self, ports: range, read: Read | None, write: Write | None) -> None:
        """Give a run of ports to a device."""
        for port in ports:
            if read:
                self._reads[port] = read
            if write:
                self._writes[port] = write

    def read(self, port: int, size: int) -> int:
        """Answer an IN."""
        read = self._reads.get(port)
        return read(port, size) if read else (1 << size * 8) - 1

    def write(self, port: int, size: int, value: int) -> None:
        """Carry out an OUT."""
        write = self._writes.get(port)
        if write:
            write(port, size, value)
