"""LZO: the file format of lzop around blocks that an optional library unpacks.

Source: the format as Linux and libxenguest read it (lib/decompress_unlzo.c; xg_dom_bzimageloader.c,
xc_try_lzo1x_decode). Big-endian, unlike all else here.
"""

from __future__ import annotations

import struct
from importlib import import_module

from pvh.errors import NotAKernel
from pvh.hints import Any
from pvh.kernel.codec import Damaged

_MAGIC = b"\x89LZO\0\r\n\x1a\n"
_MAX_BLOCK = 64 << 20
_HAS_LEVEL = 0x0940  # since this version a level byte and the upper half of mtime are there
_FLAG_FILTER = 0x800
_RAW = False  # python-lzo: the block has no header of that library's own


def decompress(data: bytes, size: int) -> bytes:
    """Return up to size bytes that an lzop stream unpacks to.

    Raises Damaged, or NotAKernel when python-lzo is not installed.
    """
    try:
        lzo: Any = import_module("lzo")  # optional, untyped, and needed by few kernels
    except ImportError:
        raise NotAKernel(
            "its payload is compressed with LZO, which needs an optional library",
            found="lzo",
            wanted="gzip, bzip2, xz, lzma, lz4 or zstd, or the library",
            hint="pip install python-lzo",
        ) from None
    position = _header_size(data)
    parts: list[bytes] = []
    room = size
    while True:
        head = data[position : position + 12]
        unpacked = int.from_bytes(head[:4], "big")
        if len(head) >= 4 and unpacked == 0:
            return b"".join(parts)
        block = data[position + 12 : position + 12 + _packed_size(head, min(room, _MAX_BLOCK))]
        if len(block) < int.from_bytes(head[4:8], "big"):
            raise Damaged("its last block is cut short")
        try:
            # A block that would not shrink is stored as it is.
            parts.append(block if len(block) == unpacked else lzo.decompress(block, _RAW, unpacked))
        except lzo.error as error:
            raise Damaged(str(error)) from None
        room -= unpacked
        position += 12 + len(block)


def _packed_size(head: bytes, most: int) -> int:
    """Return the size of a block as it stands in the stream, from its head: sizes unpacked and packed, checksum."""
    if len(head) < 12:
        raise Damaged("its last block is cut short")
    unpacked, packed, _ = struct.unpack(">III", head)
    if unpacked > most or not 0 < packed <= unpacked:
        raise Damaged(f"a block of {packed} bytes says it unpacks to {unpacked}")
    return int(packed)


def _header_size(data: bytes) -> int:
    """Return the size of the lzop header: versions, method, level, flags, filter, mode, times, name, checksum."""
    if not data.startswith(_MAGIC):
        raise Damaged("it has no lzop header")
    version = int.from_bytes(data[9:11], "big")
    at = 17 if version >= _HAS_LEVEL else 16
    flags = int.from_bytes(data[at : at + 4], "big")
    at += 8 if flags & _FLAG_FILTER else 4
    at += 12 if version >= _HAS_LEVEL else 8
    return at + 1 + (data[at] if at < len(data) else 0) + 4
