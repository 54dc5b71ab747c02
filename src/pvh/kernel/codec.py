"""Decompression of kernel payloads, with a limit and a promised size.

Every payload names its own size: gzip in its trailer, the others in a u32 that Linux's build appends to the stream
(scripts/Makefile.lib, the `_with_size` commands). libxenguest trusts that number and wants exactly so many bytes
(tools/libs/guest/xg_dom_bzimageloader.c), so a bomb is told before a byte of it is unpacked, and no decoder is ever
allowed more than one byte beyond the promise.
"""

# Each codec is imported where a payload needs it, none on the path of an uncompressed kernel.

from __future__ import annotations

from collections.abc import Callable

from pvh.errors import NotAKernel
from pvh.record import dataclass

# The most libxenguest unpacks, in bytes (xenguest.h, XC_DOM_DECOMPRESS_MAX).
LIMIT = 1 << 30

# What liblzma may use while it unpacks, in bytes (LZMA_BLOCK_SIZE of xg_dom_bzimageloader.c).
LZMA_MEMORY = 256 << 20

# What a block of an LZ4 legacy frame unpacks to at most, in bytes (lz4_Frame_format.md, "Legacy frame").
LZ4_BLOCK = 8 << 20
LZ4_MAGIC = b"\x02\x21\x4c\x18"


class Damaged(Exception):
    """A stream that cannot be decoded; the text says why."""


def _gzip(data: bytes, size: int) -> bytes:
    import zlib

    stream = zlib.decompressobj(wbits=31)
    try:
        out = stream.decompress(data, size + 1)
    except zlib.error as error:
        raise Damaged(str(error)) from None
    if not stream.eof and len(out) <= size:
        raise Damaged("the stream does not end")
    return out


def _bzip2(data: bytes, size: int) -> bytes:
    import bz2

    try:
        return bz2.BZ2Decompressor().decompress(data, size + 1)
    except OSError as error:
        raise Damaged(str(error)) from None


def _xz(data: bytes, size: int) -> bytes:
    import lzma

    return _liblzma(data, size, lzma.FORMAT_XZ)


def _lzma(data: bytes, size: int) -> bytes:
    import lzma

    return _liblzma(data, size, lzma.FORMAT_ALONE)


def _liblzma(data: bytes, size: int, form: int) -> bytes:
    import lzma

    try:
        return lzma.LZMADecompressor(form, memlimit=LZMA_MEMORY).decompress(data, size + 1)
    except lzma.LZMAError as error:
        raise Damaged(str(error)) from None


def _zstd(data: bytes, size: int) -> bytes:
    import zstandard

    try:
        promised = zstandard.frame_content_size(data)
        if promised not in {-1, size}:
            # The library would allocate what the frame says, whatever limit it is given.
            raise Damaged(f"its frame says {promised} bytes")
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    except zstandard.ZstdError as error:
        raise Damaged(str(error)) from None


def _lz4(data: bytes, size: int) -> bytes:
    import lz4.block

    if not data.startswith(LZ4_MAGIC):
        raise Damaged("it is not of the legacy frame format, the only one of lz4 that Linux's build makes")
    parts: list[bytes] = []
    room, position = size, 0
    while position < len(data):
        head = data[position : position + 4]
        position += 4
        if head == LZ4_MAGIC:  # frames may follow one another
            continue
        count = int.from_bytes(head, "little")
        if len(head) < 4 or count > len(data) - position:
            raise Damaged("its last block is cut short")
        try:
            part = lz4.block.decompress(data[position : position + count], uncompressed_size=min(LZ4_BLOCK, room))
        except lz4.block.LZ4BlockError as error:
            raise Damaged(str(error)) from None
        parts.append(part)
        room -= len(part)
        position += count
    return b"".join(parts)


def _lzo(data: bytes, size: int) -> bytes:
    from pvh.kernel import lzop

    return lzop.decompress(data, size)


@dataclass(frozen=True, slots=True)
class Codec:
    """A compression: its name, what its streams start with, and the decoder.

    Linux appends the size to all but gzip, which has it in its own trailer. decode takes the stream and the promised
    size, and returns at most one byte more than that; it raises Damaged.
    """

    name: str
    magic: bytes
    decode: Callable[[bytes, int], bytes]


# Magics as libxenguest compares them, in its order (xg_dom_bzimageloader.c, xc_dom_probe_bzimage_kernel).
CODECS = (
    Codec("gzip", b"\x1f\x8b", _gzip),
    Codec("bzip2", b"BZh", _bzip2),
    Codec("xz", b"\xfd7zXZ\0", _xz),
    Codec("zstd", b"\x28\xb5\x2f\xfd", _zstd),
    Codec("lzma", b"\x5d\0", _lzma),
    Codec("lzo", b"\x89LZO\0", _lzo),
    Codec("lz4", b"\x02\x21", _lz4),
)
GZIP = CODECS[0]


def find_codec(head: bytes) -> Codec | None:
    """Return the codec whose streams start like this."""
    return next((codec for codec in CODECS if head.startswith(codec.magic)), None)


def unpack(codec: Codec, data: bytes, path: str, offset: int) -> bytes:
    """Return what data unpacks to: exactly the size that its last four bytes promise.

    path and offset (of data in the file) are for the error. Raises NotAKernel when the promise is above LIMIT, the
    stream is damaged or cut short, or yields another size.
    """
    promised = int.from_bytes(data[-4:], "little")
    if promised > LIMIT:
        raise NotAKernel(
            f"its {codec.name} data would unpack to more than the limit",
            path=path,
            offset=offset,
            found=f"{promised} bytes",
            wanted=f"at most {LIMIT}",
            hint="it is damaged, or made to fill your memory",
        )
    try:
        out = codec.decode(data if codec is GZIP else data[:-4], promised)
    except Damaged as error:
        raise _damaged(codec, path, offset, str(error)) from None
    wanted = f"{promised} bytes, as its last four bytes say"
    if len(out) > promised:
        raise _damaged(codec, path, offset, f"more than {promised} bytes", wanted)
    if len(out) < promised:
        raise _damaged(codec, path, offset, f"{len(out)} bytes", wanted)
    return out


def _damaged(codec: Codec, path: str, offset: int, found: str, wanted: str | None = None) -> NotAKernel:
    return NotAKernel(
        f"its {codec.name} data is damaged or cut short",
        path=path,
        offset=offset,
        found=found,
        wanted=wanted,
        hint="get the file again",
    )
