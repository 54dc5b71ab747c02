"""Odd ELF files, bzImages and notes, made in code: what the tests of other rooms read is written here, byte by byte."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from dataclasses import dataclass, field

XEN = b"Xen\0"
PT_LOAD, PT_INTERP, PT_NOTE = 1, 3, 4
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_NOTE = 1, 2, 3, 7
R, W, X = 4, 2, 1


def note(number: int, desc: bytes, owner: bytes = XEN, pad: int = 4) -> bytes:
    """Return a note record: name and descriptor each padded, to 4 bytes unless a test wants it wrong."""
    head = struct.pack("<III", len(owner), len(desc), number)
    return head + owner.ljust(-(-len(owner) // pad) * pad, b"\0") + desc.ljust(-(-len(desc) // pad) * pad, b"\0")


def u32(*values: int) -> bytes:
    """Return little-endian 32-bit words."""
    return struct.pack(f"<{len(values)}I", *values)


def u64(*values: int) -> bytes:
    """Return little-endian 64-bit words."""
    return struct.pack(f"<{len(values)}Q", *values)


def entry_note(entry: int = 0x100000) -> bytes:
    """Return PHYS32_ENTRY, the one note that the ABI requires."""
    return note(18, u32(entry))


@dataclass(frozen=True)
class Load:
    """A program header and its bytes. Fields left None follow from the bytes and from where the writer puts them."""

    paddr: int = 0x100000
    data: bytes = b"\xf4" * 32
    memsz: int | None = None
    flags: int = R | X
    type: int = PT_LOAD
    align: int = 0x1000
    vaddr: int | None = None
    offset: int | None = None
    filesz: int | None = None


@dataclass(frozen=True)
class Section:
    """A section header and its bytes."""

    name: str
    data: bytes
    type: int = SHT_PROGBITS
    link: int = 0
    size: int | None = None


def notes(data: bytes, **fields: int) -> Load:
    """Return a PT_NOTE segment."""
    return Load(**{"paddr": 0, "flags": R, "align": 4, **fields}, type=PT_NOTE, data=data)


@dataclass(frozen=True)
class Elf:
    """An ELF file: header, program headers, their bytes, section bytes, section headers.

    sections  in order behind the null section; a section name table is appended when there is any
    header    fields of the ELF header to force, by name
    """

    segments: tuple[Load, ...] = (Load(),)
    sections: tuple[Section, ...] = ()
    bits: int = 64
    header: dict[str, int] = field(default_factory=dict[str, int])

    def build(self) -> bytes:
        """Return the file."""
        wide = self.bits == 64
        ehsize, phsize, shsize = (64, 56, 64) if wide else (52, 32, 40)
        phentsize, shentsize = self.header.get("phentsize", phsize), self.header.get("shentsize", shsize)
        body = bytearray(ehsize + phentsize * len(self.segments))
        rows: list[bytes] = []
        for segment in self.segments:
            offset = _append(body, segment.data)
            rows.append(self._program_header(segment, offset))
        headers = self._sections(body)
        shoff = _append(body, b"".join(row.ljust(shentsize, b"\0") for row in headers)) if headers else 0
        for index, row in enumerate(rows):
            at = ehsize + index * phentsize
            body[at : at + len(row)] = row
        fields = {
            "class": 2 if wide else 1, "data": 1, "type": 2, "machine": 62 if wide else 3, "entry": 0,
            "phoff": ehsize if rows else 0, "shoff": shoff, "ehsize": ehsize, "phentsize": phentsize,
            "phnum": len(rows), "shentsize": shentsize if headers else 0, "shnum": len(headers),
            "shstrndx": max(0, len(headers) - 1), **self.header,
        }  # fmt: skip
        body[:ehsize] = _ehdr(fields, wide=wide)
        return bytes(body)

    def _program_header(self, segment: Load, offset: int) -> bytes:
        at = offset if segment.offset is None else segment.offset
        filesz = len(segment.data) if segment.filesz is None else segment.filesz
        memsz = filesz if segment.memsz is None else segment.memsz
        vaddr = segment.paddr if segment.vaddr is None else segment.vaddr
        where = (at, vaddr, segment.paddr, filesz, memsz)
        if self.bits == 64:
            return struct.pack("<IIQQQQQQ", segment.type, segment.flags, *where, segment.align)
        return struct.pack("<IIIIIIII", segment.type, *where, segment.flags, segment.align)

    def _sections(self, body: bytearray) -> list[bytes]:
        """Append the sections' bytes and return the headers, the null one and the name table's included."""
        if not self.sections:
            return []
        names = b"\0"
        layout = "<IIQQQQIIQQ" if self.bits == 64 else "<IIIIIIIIII"
        headers = [bytes(struct.calcsize(layout))]
        for section in (*self.sections, None):
            name, kind = (section.name, section.type) if section else (".shstrtab", SHT_STRTAB)
            at, names = len(names), names + name.encode() + b"\0"
            data = section.data if section else names
            offset = _append(body, data)
            size = section.size if section and section.size is not None else len(data)
            headers.append(struct.pack(layout, at, kind, 0, 0, offset, size, section.link if section else 0, 0, 4, 0))
        return headers


def _append(body: bytearray, data: bytes) -> int:
    body.extend(bytes(-len(body) % 8))
    offset = len(body)
    body.extend(data)
    return offset


def _ehdr(f: dict[str, int], *, wide: bool) -> bytes:
    ident = b"\x7fELF" + bytes([f["class"], f["data"], 1]) + bytes(9)
    layout = "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH"
    return ident + struct.pack(
        layout, f["type"], f["machine"], 1, f["entry"], f["phoff"], f["shoff"], 0, f["ehsize"], f["phentsize"],
        f["phnum"], f["shentsize"], f["shnum"], f["shstrndx"],
    )  # fmt: skip


def kernel(*records: bytes, bits: int = 64, loads: tuple[Load, ...] = (Load(),)) -> bytes:
    """Return a kernel with these notes in a PT_NOTE segment."""
    return Elf((*loads, notes(b"".join(records))), bits=bits).build()


def pack(codec: str, data: bytes) -> bytes:
    """Return a payload as Linux's build makes it: the stream, and the size behind it (gzip has it in its trailer)."""
    size = u32(len(data))
    if codec == "gzip":
        return gzip.compress(data, 1, mtime=0)
    if codec == "bzip2":
        return bz2.compress(data) + size
    if codec == "xz":
        return lzma.compress(data, check=lzma.CHECK_CRC32) + size
    if codec == "lzma":
        return lzma.compress(data, lzma.FORMAT_ALONE) + size
    if codec == "zstd":
        return _zstd(data) + size
    if codec == "lz4":
        return lz4_legacy(data) + size
    raise ValueError(codec)


def _zstd(data: bytes) -> bytes:
    import zstandard

    # Linux's build pipes into zstd, so that the frame does not know its size.
    return zstandard.ZstdCompressor(write_content_size=False).compress(data)


def lz4_legacy(data: bytes, block: int = 8 << 20) -> bytes:
    """Return an LZ4 legacy frame."""
    import lz4.block

    out = b"\x02\x21\x4c\x18"
    for at in range(0, len(data), block):
        packed: bytes = lz4.block.compress(data[at : at + block], store_size=False)
        out += u32(len(packed)) + packed
    return out


def lzop(blocks: list[tuple[int, bytes]], *, version: int = 0x1040, flags: int = 0, name: bytes = b"") -> bytes:
    """Return an lzop stream of blocks given as (unpacked size, packed bytes); big-endian, as that format is."""
    head = b"\x89LZO\0\r\n\x1a\n" + struct.pack(">HHHB", version, 0x20A0, 0x0940, 1)
    new = version >= 0x0940
    head += b"\x05" * new + struct.pack(">I", flags) + bytes(4) * bool(flags & 0x800)
    head += bytes(12 if new else 8) + bytes([len(name)]) + name + bytes(4)
    body = b"".join(struct.pack(">III", size, len(packed), 0) + packed for size, packed in blocks)
    return head + body + bytes(4)


@dataclass(frozen=True)
class BzImage:
    """A bzImage around a payload, with a setup header that says so. Fields left None are the true ones."""

    payload: bytes
    protocol: int = 0x020F
    setup_sects: int = 3
    payload_offset: int = 0x80
    payload_length: int | None = None
    version: str = "6.1.0-test (someone@somewhere) #1"
    magic: bytes = b"HdrS"
    syssize: int = 0
    signature: tuple[int, int] | None = None  # offset and size that an EFI stub's PE32+ header names

    def build(self) -> bytes:
        """Return the file."""
        head = bytearray((self.setup_sects + 1) * 512)
        head = head.ljust(1024, b"\0")
        head[0x1F1] = self.setup_sects
        struct.pack_into("<I", head, 0x1F4, self.syssize)
        head[0x1FE:0x202] = b"\x55\xaa\xeb\x66"
        head[0x202:0x206] = self.magic
        struct.pack_into("<H", head, 0x206, self.protocol)
        length = len(self.payload) if self.payload_length is None else self.payload_length
        struct.pack_into("<II", head, 0x248, self.payload_offset, length)
        if self.signature is not None:
            head[:2], head[0x3C], head[0x40:0x44], head[0x58:0x5A] = b"MZ", 0x40, b"PE\0\0", b"\x0b\x02"
            struct.pack_into("<II", head, 0x40 + 24 + 112 + 32, *self.signature)
        if self.version:
            struct.pack_into("<H", head, 0x20E, 0x300 - 0x200)
            head[0x300 : 0x300 + len(self.version)] = self.version.encode()
        at = (self.setup_sects + 1) * 512 + self.payload_offset
        return bytes(head).ljust(at, b"\x90")[:at] + self.payload
