"""Packets: `$data#checksum`, acknowledged until the debugger asks for silence (GDB's manual, E.1 Overview).

What comes from a socket is hostile: a packet is bounded, whatever is no packet is passed over, a wrong checksum is
answered with `-`.
"""

from __future__ import annotations

from collections.abc import Iterator

INTERRUPT = b"\x03"  # outside of packets: stop the machine
MOST = 0x4000  # bytes of a packet's data; said in qSupported


def framed(data: bytes) -> bytes:
    """Return data as a packet: `#`, `$`, `}` and `*` are escaped."""
    body = bytearray()
    for byte in data:
        if byte in b"#$}*":
            body += bytes((0x7D, byte ^ 0x20))
        else:
            body.append(byte)
    return b"$%b#%02x" % (bytes(body), sum(body) & 0xFF)


class Reader:
    """Takes bytes as they come and gives whole packets, INTERRUPT, and what is to be sent at once.

    silent  acknowledgements are neither sent nor awaited (QStartNoAckMode)
    """

    def __init__(self) -> None:
        self.silent = False
        self._data = bytearray()

    def take(self, data: bytes) -> Iterator[tuple[bytes | None, bytes]]:
        """Give (a packet's data, or INTERRUPT, or None; what to send now)."""
        self._data += data
        while self._data:
            first = self._data[0]
            if first == INTERRUPT[0]:
                del self._data[0]
                yield INTERRUPT, b""
            elif first != ord("$"):
                del self._data[0]  # + and - of what we sent over a reliable stream, or noise
            else:
                end = self._data.find(b"#")
                if end < 0 and len(self._data) <= 2 * MOST:
                    return
                if end < 0 or end > 2 * MOST:
                    self._data.clear()
                    yield None, b"" if self.silent else b"-"
                    return
                if len(self._data) < end + 3:
                    return
                body, said = bytes(self._data[1:end]), bytes(self._data[end + 1 : end + 3])
                del self._data[: end + 3]
                yield self._checked(body, said)

    def interrupted(self, data: bytes) -> bool:
        """Take bytes while the machine runs; tell whether INTERRUPT comes next. Packets wait for take()."""
        self._data += data
        self._data = self._data.lstrip(b"+-")
        if not self._data.startswith(INTERRUPT):
            return False
        del self._data[0]
        return True

    def _checked(self, body: bytes, said: bytes) -> tuple[bytes | None, bytes]:
        if self.silent:
            return unescaped(body), b""
        if said.lower() != b"%02x" % (sum(body) & 0xFF):
            return None, b"-"
        return unescaped(body), b"+"


def unescaped(body: bytes) -> bytes:
    """Return a packet's data."""
    if b"}" not in body:
        return body
    head, *parts = body.split(b"}")
    return head + b"".join(bytes((part[0] ^ 0x20,)) + part[1:] for part in parts if part)
