"""Files that are no kernel, or a damaged one: what they are, and what the refusal says."""

from __future__ import annotations

from dataclasses import dataclass, field

from elfwriter import BzImage, Elf, entry_note, kernel, lz4_legacy, lzop, pack, u32

PLAIN = kernel(entry_note())


@dataclass(frozen=True)
class Refusal:
    """A file, the clause its refusal starts with, and the rules (rules.py) that it proves."""

    id: str
    data: bytes = field(repr=False)
    cause: str
    cites: tuple[str, ...] = ()
    found: str | None = None
    offset: int | None = None
    hint: str = ""


def at(offset: int, magic: bytes, size: int = 0x9000) -> bytes:
    """Return a file of 0x01 bytes with a magic at an offset."""
    return (b"\x01" * offset + magic).ljust(size, b"\x01")


def pe(subsystem: int, section: bytes = b".text") -> bytes:
    head = b"MZ".ljust(0x3C, b"\0") + u32(0x80)
    body = bytearray(head.ljust(0x80, b"\0") + b"PE\0\0".ljust(0x200, b"\0"))
    body[0x80 + 0x5C] = subsystem
    return bytes(body) + section.ljust(8, b"\0") + bytes(64)


def names() -> list[Refusal]:
    told = [
        ("empty", b"", "is an empty file"),
        ("zeroes", bytes(4096), "is a file of zeroes"),
        ("unknown", b"\x01\x02\x03\x04" * 64, "is a file of no kind known here"),
        ("arm64", at(0, b"MZ".ljust(0x38, b"\0") + b"ARM\x64"), "is an arm64 Linux Image"),
        ("riscv", at(0x38, b"RSC\x05"), "is a RISC-V Linux Image"),
        ("arm-zimage", at(0x24, b"\x18\x28\x6f\x01"), "is a 32-bit ARM zImage"),
        ("zboot", b"MZ\0\0zimg" + bytes(64), "is an EFI zboot image"),
        ("efi", pe(10), "is an EFI program (PE)"),
        ("uki", pe(10, b".linux"), "is a unified kernel image"),
        ("efi-rom", pe(13), "is an EFI program (PE)"),
        ("xbox", pe(14), "is a Windows program (PE)"),
        ("windows", pe(3), "is a Windows program (PE)"),
        ("dos", b"MZ" + bytes(100), "is a DOS program"),
        ("deb", b"!<arch>\ndebian-binary   17", "is a Debian package"),
        ("ar", b"!<arch>\nlib.o/", "is an ar archive"),
        ("thin-ar", b"!<thin>\nlib.o/", "is a thin ar archive"),
        ("rpm", b"\xed\xab\xee\xdb\x03", "is an RPM package"),
        ("cpio", b"070701000", "is a cpio archive"),
        ("cpio-crc", b"070702000", "is a cpio archive"),
        ("cpio-odc", b"070707000", "is a cpio archive, old format"),
        ("cpio-bin", b"\xc7\x71\x01\x00", "is a cpio archive, binary format"),
        ("xz", b"\xfd7zXZ\0\0\x04", "is an xz file"),
        ("zstd", b"\x28\xb5\x2f\xfd\x04", "is a zstd file"),
        ("bzip2", b"BZh91AY", "is a bzip2 file"),
        ("lz4", b"\x04\x22\x4d\x18\x64", "is an LZ4 file"),
        ("lz4-legacy", lz4_legacy(b"x" * 99), "is an LZ4 file (legacy frame)"),
        ("lzop", b"\x89LZO\0\r\n\x1a\n", "is an lzop file"),
        ("lzma", b"\x5d\0\0\x80\0\xff\xff", "is an lzma file"),
        ("uimage", b"\x27\x05\x19\x56\x01", "is a U-Boot uImage"),
        ("fdt", b"\xd0\x0d\xfe\xed\x01", "is a device tree or U-Boot FIT image"),
        ("android", b"ANDROID!\x01", "is an Android boot image"),
        ("zip", b"PK\x03\x04\x14\0", "is a zip archive"),
        ("7z", b"7z\xbc\xaf\x27\x1c\0", "is a 7-Zip archive"),
        ("tar", at(257, b"ustar"), "is a tar archive"),
        ("iso", at(0x8001, b"CD001"), "is an ISO 9660 disk image"),
        ("qcow2", b"QFI\xfb\0\0\0\x03", "is a QEMU qcow2 disk image"),
        ("vmdk", b"KDMV\x01", "is a VMware disk image"),
        ("vhd", b"conectix\x01", "is a VHD disk image"),
        ("vhdx", b"vhdxfile\x01", "is a VHDX disk image"),
        ("squashfs", b"hsqs\x01", "is a squashfs file system"),
        ("ext4", at(0x438, b"\x53\xef"), "is an ext2, ext3 or ext4 file system"),
        ("gpt", at(512, b"EFI PART"), "is a disk image with a GPT partition table"),
        ("mbr", at(510, b"\x55\xaa"), "is a disk image or boot sector"),
        ("fv", bytes(0x28) + b"_FVH" + bytes(64), "is a UEFI firmware volume"),
        ("mach-o", b"\xcf\xfa\xed\xfe\x07\0", "is a Mach-O program"),
        ("java", b"\xca\xfe\xba\xbe\0\0", "is a Java class or a Mach-O program"),
        ("wasm", b"\0asm\1\0\0\0", "is a WebAssembly module"),
        ("pdf", b"%PDF-1.7\n%\xff", "is a PDF document"),
        ("script", b"#!/bin/sh\nexec qemu", "is a script"),
        ("html", b"\n<!DOCTYPE html><html>", "is an HTML page"),
        ("html-tag", b"\xef\xbb\xbf<HTML><body>", "is an HTML page"),
        ("html-comment", b"<!-- saved --><html>", "is an HTML page"),
        ("xml", b"<?xml version='1.0'?>", "is an XML document"),
        ("text", b"hello, kernel\n", "is a text file"),
        ("utf-8", "Grüße\n".encode(), "is a text file"),
        ("utf-8-cut", ("x" * 4095 + "ü").encode() + b"x" * 99, "is a text file"),
        ("utf-8-cut-late", ("x" * 4093 + "\U0001f600").encode() + b"x" * 99, "is a text file"),
        ("latin-1-late", b"x" * 4092 + b"\xfcxxxxx", "is a file of no kind known here"),
        ("latin-1", b"Gr\xfc\xdfe " * 99, "is a file of no kind known here"),
        ("short", b"\x7fEL", "is a file of no kind known here"),
    ]
    return [Refusal(f"name/{name}", data, cause) for name, data, cause in told]


def cut(data: bytes, count: int) -> bytes:
    return data[: len(data) - count]


def oversized(codec: str, claim: int) -> bytes:
    return cut(pack(codec, PLAIN), 4) + u32(claim)


GZIP = pack("gzip", PLAIN)
HEADER = 2048 + 0x80
LZ4_CUT = "its last block is cut short"
# A stored block that is not the last, and ends with the size of what it holds: all is there but the stream's end.
ENDS = PLAIN + u32(len(PLAIN) + 4)
UNENDED = GZIP[:10] + b"\0" + len(ENDS).to_bytes(2, "little") + (len(ENDS) ^ 0xFFFF).to_bytes(2, "little") + ENDS
FOUR_SECTORS = BzImage(GZIP, setup_sects=4).build()

DAMAGE = [
    Refusal("magic", BzImage(GZIP, magic=b"HdrX").build(), "is a disk image or boot sector", ("5-magic",)),
    Refusal(
        "protocol",
        BzImage(GZIP, protocol=0x207).build(),
        "is a Linux image too old",
        ("5-version",),
        "boot protocol 2.07",
        0x206,
    ),
    Refusal("payload-offset", BzImage(b"", payload_length=0).build(), "is a bzImage cut short", ("5-bounds",)),
    Refusal(
        "payload-length",
        BzImage(GZIP, payload_length=len(GZIP) + 1).build(),
        "is a bzImage cut short",
        ("5-bounds",),
        offset=0x248,
    ),
    Refusal(
        "syssize",
        BzImage(b"x" * 16, payload_length=8, payload_offset=0, syssize=2).build(),
        "is a bzImage cut short",
        (),
        "2064 bytes",
        0x1F4,
    ),
    Refusal(
        "signature",
        BzImage(GZIP, signature=(HEADER, len(GZIP) + 1)).build(),
        "is a bzImage cut short: its signature",
        (),
        f"{HEADER + len(GZIP)} bytes",
        0x40 + 168,
    ),
    Refusal("header-cut", BzImage(GZIP).build()[:0x206], "is a Linux image too old"),
    Refusal(
        "setup-sects-0-is-not-4",
        FOUR_SECTORS[:0x1F1] + b"\0" + FOUR_SECTORS[0x1F2:],
        "its payload has no known compression",
        ("5-payload",),
    ),
    Refusal(
        "compression",
        BzImage(b"\x01\x02\x03\x04\x05\x06\x07").build(),
        "its payload has no known compression",
        ("5-unknown",),
        "01 02 03 04 05 06",
        HEADER,
    ),
    Refusal("no-compression", BzImage(PLAIN).build(), "its payload has no known compression", ("5-unknown",)),
    Refusal(
        "no-payload",
        BzImage(b"behind", payload_length=0).build(),
        "its payload has no known compression",
        (),
        "nothing",
    ),
    Refusal(
        "not-elf",
        BzImage(pack("xz", b"070701" * 9)).build(),
        "is a bzImage whose xz payload is a cpio archive",
        ("5-elf",),
    ),
    Refusal(
        "gzip-of-cpio",
        pack("gzip", b"070701" * 9),
        "is gzip data that holds a cpio archive",
        (),
        None,
        None,
        "an initramfs goes with --initrd, beside a kernel",
    ),
    Refusal(
        "gzip-twice", pack("gzip", pack("gzip", PLAIN)), "is gzip data that holds gzip data again", ("5-gzip-file",)
    ),
    Refusal("gzip-cut", cut(GZIP, 20), "its gzip data"),
    Refusal("gzip-trailer", cut(GZIP, 8) + GZIP[-4:], "its gzip data is damaged or cut short", ("5-gzip",)),
    Refusal("gzip-crc", cut(GZIP, 8) + b"\0\0\0\0" + GZIP[-4:], "its gzip data is damaged", ("5-gzip",)),
    Refusal("gzip-head", b"\x1f\x8b", "its gzip data is damaged"),
    *(
        Refusal(
            f"{codec}-{name}", BzImage(oversized(codec, claim)).build(), cause, ("5-size", f"5-{codec}"), found, HEADER
        )
        for codec in ("bzip2", "xz", "lzma", "lz4", "zstd")
        for name, claim, cause, found in (
            ("bomb", (1 << 30) + 1, f"its {codec} data would unpack to more than the limit", "1073741825 bytes"),
            ("larger", len(PLAIN) + 1, f"its {codec} data is damaged or cut short", f"{len(PLAIN)} bytes"),
            ("smaller", len(PLAIN) - 1, f"its {codec} data is damaged or cut short", None),
        )
    ),
    *(
        Refusal(
            f"{codec}-damage",
            BzImage(pack(codec, PLAIN)[:8] + b"\xff" * 40 + pack(codec, PLAIN)[48:]).build(),
            f"its {codec} data is damaged or cut short",
            (f"5-{codec}",),
        )
        for codec in ("gzip", "bzip2", "xz", "lzma", "lz4", "zstd")
    ),
    Refusal(
        "gzip-no-end",
        UNENDED,
        "its gzip data is damaged or cut short",
        ("5-gzip",),
        "the stream does not end",
    ),
    Refusal(
        "bzip2-yields-more",
        BzImage(oversized("bzip2", len(PLAIN) - 1)).build(),
        "its bzip2 data is damaged or cut short",
        ("5-size",),
        f"more than {len(PLAIN) - 1} bytes",
    ),
    Refusal(
        "lz4-other-frame",
        BzImage(b"\x02\x21\x4c\x19" + pack("lz4", PLAIN)[4:]).build(),
        "its lz4 data is damaged",
        ("5-lz4",),
        "it is not of the legacy frame format, the only one of lz4 that Linux's build makes",
    ),
    *(
        Refusal(f"lz4-{name}", BzImage(stream).build(), "its lz4 data is damaged", ("5-lz4",), LZ4_CUT)
        for name, stream in (
            ("half-a-count", cut(pack("lz4", PLAIN), 4) + b"\0\0" + u32(len(PLAIN))),
            ("half-a-block", cut(pack("lz4", PLAIN), 9) + u32(len(PLAIN))),
            ("no-block", pack("lz4", b"")[:4] + u32(1) + u32(len(PLAIN))),
        )
    ),
    Refusal("elf-class", Elf(header={"class": 3}).build(), "is an ELF file of no known class", (), "3", 4),
    Refusal("elf-big-endian", Elf(header={"data": 2}).build(), "is an ELF file that is not little-endian", (), "2", 5),
    Refusal("elf-cut-header", PLAIN[:63], "is a damaged ELF file: its ELF header"),
    Refusal("elf-cut-magic", PLAIN[:4], "is an ELF file of no known class"),
    Refusal(
        "elf-phdrs",
        Elf(header={"phoff": 0x10000}).build(),
        "is a damaged ELF file: its program header table",
        ("1-tables-inside",),
    ),
    Refusal(
        "elf-phnum",
        Elf(header={"phnum": 0xFFFF}).build(),
        "is a damaged ELF file: its program header table",
        ("1-tables-inside",),
        f"{len(Elf().build())} bytes",
    ),
    Refusal(
        "elf-shdrs",
        Elf(header={"shoff": 0x10000}).build(),
        "is a damaged ELF file: its section header table",
        ("1-tables-inside",),
    ),
    Refusal("elf-cut-in-xz", BzImage(pack("xz", PLAIN[:63])).build(), "is a damaged ELF file: its ELF header"),
    Refusal("lzo-header", BzImage(b"\x89LZO\0" + bytes(40)).build(), "its lzo data is damaged", ("5-lzo",)),
    Refusal("lzo-cut", BzImage(cut(lzop([(9, b"123")]), 5) + u32(9)).build(), "its lzo data is damaged", ("5-lzo",)),
]

CASES = [*names(), *DAMAGE]
