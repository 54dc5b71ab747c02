"""A small AML encoder: the operators the DSDT needs (ACPI specification 6.5, chapter 20)."""

from __future__ import annotations

from collections.abc import Iterable

ZERO, RETURN, IF, ADD, TO_BUFFER = b"\x00", b"\xa4", b"\xa0", b"\x72", b"\x96"
_EXT = b"\x5b"


def name_string(path: str) -> bytes:
    r"""Encode a path such as `\_SB.PR00`; segments are padded to 4 characters with underscores (20.2.2)."""
    root = b"\\" if path.startswith("\\") else b""
    segments = [segment.ljust(4, "_").encode("ascii") for segment in path.removeprefix("\\").split(".")]
    prefix = {1: b"", 2: b"\x2e"}.get(len(segments), b"\x2f" + bytes([len(segments)]))
    return root + prefix + b"".join(segments)


def _length_bytes(length: int) -> bytes:
    """Encode a PkgLength: 6 bits in one byte, or 4 bits and up to 3 bytes more (20.2.4)."""
    if length < 1 << 6:
        return bytes([length])
    more = (length.bit_length() - 4 + 7) // 8
    return bytes([more << 6 | length & 15]) + (length >> 4).to_bytes(more, "little")


def package(op: bytes, body: bytes) -> bytes:
    """Encode an operator with a PkgLength, which counts its own bytes."""
    size = next(size for size in range(1, 5) if len(_length_bytes(len(body) + size)) == size)
    return op + _length_bytes(len(body) + size) + body


def integer(value: int) -> bytes:
    """Encode an integer of up to 64 bits in its shortest form (20.2.3)."""
    if value <= 1:
        return bytes([value])
    for prefix, size in ((0x0A, 1), (0x0B, 2), (0x0C, 4)):
        if value < 1 << 8 * size:
            return bytes([prefix]) + value.to_bytes(size, "little")
    return b"\x0e" + value.to_bytes(8, "little")


def string(text: str) -> bytes:
    """Encode an ASCII string."""
    return b"\x0d" + text.encode("ascii") + b"\0"


def name(path: str, value: bytes) -> bytes:
    """Encode Name (path, value)."""
    return b"\x08" + name_string(path) + value


def scope(path: str, body: bytes) -> bytes:
    """Encode Scope (path) { body }."""
    return package(b"\x10", name_string(path) + body)


def device(path: str, body: bytes) -> bytes:
    """Encode Device (path) { body }."""
    return package(_EXT + b"\x82", name_string(path) + body)


def method(path: str, body: bytes) -> bytes:
    """Encode Method (path, 0, NotSerialized) { body }."""
    return package(b"\x14", name_string(path) + b"\x00" + body)


def memory_region(path: str, address: bytes, size: int) -> bytes:
    """Encode OperationRegion (path, SystemMemory, address, size); address is an encoded term."""
    return _EXT + b"\x80" + name_string(path) + b"\x00" + address + integer(size)


def field(region: str, units: Iterable[tuple[str, int]]) -> bytes:
    """Encode Field (region, ByteAcc, NoLock, Preserve) { units }: name and width in bits, "" for a gap."""
    body = b"".join(
        (unit.ljust(4, "_").encode("ascii") if unit else b"\0") + _length_bytes(bits) for unit, bits in units
    )
    return package(_EXT + b"\x81", name_string(region) + b"\x01" + body)
