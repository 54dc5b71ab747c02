"""From a file to the ELF inside it, by content and never by name.

A file may be gzip as a whole (libxenguest unpacks that first: xg_dom_core.c, xc_dom_kernel_mem); what it holds may be a
bzImage whose payload is an ELF; or it is an ELF.
"""

from __future__ import annotations

import struct

from pvh.errors import NotAKernel
from pvh.kernel import codec
from pvh.kernel.elf import MAGIC
from pvh.kernel.record import Layer
from pvh.kernel.source import BytesSource, Source

# Offsets in a bzImage's setup header (Linux, Documentation/arch/x86/boot.rst).
_SETUP_SECTS = 0x1F1
_SYSSIZE = 0x1F4  # u32, in paragraphs
_HDRS = 0x202
_VERSION = 0x206
_KERNEL_VERSION = 0x20E
_PAYLOAD = 0x248  # u32 payload_offset, u32 payload_length
_HEADER_END = 0x250
_SECTOR = 512
_PARAGRAPH = 16
_OLDEST = 0x0208  # the first boot protocol with a payload that loaders may unpack themselves


def open_container(source: Source) -> tuple[tuple[Layer, ...], Source, str]:
    """Return the layers of a file, outermost first, the source of its ELF's bytes, and the version a bzImage names.

    Raises NotAKernel, naming what the file is instead, or how it is damaged.
    """
    layers: tuple[Layer, ...] = ()
    version = ""
    inner = source
    if source.read(0, 2) == codec.GZIP.magic:
        layers += (Layer("gzip", 0, source.size),)
        inner = BytesSource(source.path, codec.unpack(codec.GZIP, source.read(0, source.size), source.path, 0))
    if is_bzimage(inner):
        version = kernel_version(inner)
        inner, found = _open_bzimage(inner, version)
        layers += found
    if inner.read(0, 4) != MAGIC:
        raise _not_a_kernel(inner, layers)
    return layers, inner, version


def guess(source: Source) -> str | None:
    """Return which container a file starts as, though what it holds may be no kernel: gzip, bzimage, elf or None."""
    if source.read(0, 2) == codec.GZIP.magic:
        return "gzip"
    if is_bzimage(source):
        return "bzimage"
    return "elf" if source.read(0, 4) == MAGIC else None


def is_bzimage(source: Source) -> bool:
    """Tell whether a source has Linux's setup header."""
    return source.read(_HDRS, 4) == b"HdrS"


def _open_bzimage(source: Source, version: str) -> tuple[Source, tuple[Layer, Layer]]:
    offset, length, protocol = _payload(source)
    data = source.read(offset, length)
    found = codec.find_codec(data[:8])
    if found is None:
        raise NotAKernel(
            "its payload has no known compression",
            path=source.path,
            offset=offset,
            found=data[:6].hex(" ") or "nothing",
            wanted="gzip, bzip2, xz, lzma, lz4, zstd or lzo",
            hint="the file is damaged, or newer than this program",
        )
    detail = f"boot protocol {protocol >> 8}.{protocol & 0xFF:02}" + (f", Linux {version}" if version else "")
    layers = (Layer("bzImage", 0, source.size, detail), Layer(found.name, offset, length))
    return BytesSource(source.path, codec.unpack(found, data, source.path, offset)), layers


def _payload(source: Source) -> tuple[int, int, int]:
    """Return offset and length of a bzImage's payload, and its boot protocol.

    A setup_sects of 0 means 0 here, as libxenguest takes it, not 4 as Linux's boot text says.
    """
    head = source.read(0, _HEADER_END).ljust(_HEADER_END, b"\0")
    protocol = int.from_bytes(head[_VERSION : _VERSION + 2], "little")
    if protocol < _OLDEST:
        raise NotAKernel(
            "is a Linux image too old to be unpacked",
            path=source.path,
            offset=_VERSION,
            found=f"boot protocol {protocol >> 8}.{protocol & 0xFF:02}",
            wanted="2.08 or newer",
            hint="give the vmlinux it was made from",
        )
    setup = (head[_SETUP_SECTS] + 1) * _SECTOR
    offset, length = struct.unpack_from("<II", head, _PAYLOAD)
    if setup + offset >= source.size or setup + offset + length > source.size:
        raise _cut_short(source, "payload", _PAYLOAD, setup + offset + length)
    # libxenguest would not look at what lies behind the payload; but without it, this is not the file that was built.
    system = int.from_bytes(head[_SYSSIZE : _SYSSIZE + 4], "little") * _PARAGRAPH
    if setup + system > source.size:
        raise _cut_short(source, "protected-mode part", _SYSSIZE, setup + system)
    field, end = _signature(source)
    if end > source.size:
        raise _cut_short(source, "signature", field, end)
    return setup + offset, length, protocol


def _signature(source: Source) -> tuple[int, int]:
    """Return where the PE header of an EFI stub names its signature, and where that ends; 0, 0 without one.

    The fifth data directory of the optional header of PE32+ (PE format, "Attribute certificate table"): offset, size.
    """
    pe = int.from_bytes(source.read(0x3C, 4), "little")
    head = source.read(pe, 26)
    if source.read(0, 2) != b"MZ" or not head.startswith(b"PE\0\0") or head[24:26] != b"\x0b\x02":
        return 0, 0
    field = pe + 24 + 112 + 4 * 8
    offset, size = struct.unpack("<II", source.read(field, 8).ljust(8, b"\0"))
    return field, offset + size


def _cut_short(source: Source, part: str, field: int, end: int) -> NotAKernel:
    return NotAKernel(
        f"is a bzImage cut short: its {part} reaches beyond the file",
        path=source.path,
        offset=field,
        found=f"{source.size} bytes",
        wanted=f"{end} bytes at least",
        hint="get the file again",
    )


def kernel_version(source: Source) -> str:
    """Return the version text a bzImage's setup header points to, "" where there is none.

    A pointer of 0 means none; there, a jump follows, which is no ASCII.
    """
    pointer = int.from_bytes(source.read(_KERNEL_VERSION, 2), "little")
    text = source.read(pointer + _SECTOR, 512).split(b"\0")[0]
    return text.decode("latin-1").split(" ")[0] if text.isascii() else ""


def _not_a_kernel(source: Source, layers: tuple[Layer, ...]) -> NotAKernel:
    from pvh.kernel.naming import identify  # only a refusal pays for it

    kind = identify(source)
    inside = f"is {layers[-1].format} data that holds " if layers else "is "
    if layers and layers[0].format == "bzImage":
        inside = f"is a bzImage whose {layers[-1].format} payload is "
    return NotAKernel(
        inside + kind.name,
        path=source.path,
        wanted="an ELF or bzImage kernel, or gzip of one",
        hint=kind.hint or None,
    )
