"""What a file is when it is no kernel this package boots: its name, and what to do instead."""

from __future__ import annotations

from pvh.kernel.source import Source
from pvh.record import dataclass

_WINDOW = 0x8800  # reaches the volume descriptor of an ISO image


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file, told by bytes at an offset. name has its article; hint is what to do, if anything can be done."""

    offset: int
    magic: bytes
    name: str
    hint: str = ""


_UNPACK = "unpack it first, and give what comes out"
_INITRD = "an initramfs goes with --initrd, beside a kernel"
_INSIDE = "take the kernel out of it, and give that"
_X86_ONLY = "this ABI is for x86 kernels"

# The more telling come first: an arm64 Image and an EFI zboot image both also start as PE files do.
KINDS = (
    Kind(0x38, b"ARM\x64", "an arm64 Linux Image", _X86_ONLY),
    Kind(0x38, b"RSC\x05", "a RISC-V Linux Image", _X86_ONLY),
    Kind(4, b"zimg", "an EFI zboot image", "give the bzImage or vmlinux it was made from"),
    Kind(0x24, b"\x18\x28\x6f\x01", "a 32-bit ARM zImage", _X86_ONLY),
    Kind(0, b"!<arch>\ndebian-binary", "a Debian package", "dpkg-deb -x FILE DIR, then give DIR/boot/vmlinuz-..."),
    Kind(0, b"!<arch>\n", "an ar archive (a static library)"),
    Kind(0, b"!<thin>\n", "a thin ar archive (a static library)"),
    Kind(0, b"070701", "a cpio archive (an initramfs?)", _INITRD),
    Kind(0, b"070702", "a cpio archive (an initramfs?)", _INITRD),
    Kind(0, b"070707", "a cpio archive, old format", _INITRD),
    Kind(0, b"\xc7\x71", "a cpio archive, binary format", _INITRD),
    Kind(0, b"\xed\xab\xee\xdb", "an RPM package", "rpm2cpio FILE | cpio -id, then give the vmlinuz in it"),
    Kind(0, b"\x1f\x8b", "gzip data again", _UNPACK),
    Kind(0, b"\xfd7zXZ\0", "an xz file", _UNPACK),
    Kind(0, b"\x28\xb5\x2f\xfd", "a zstd file", _UNPACK),
    Kind(0, b"BZh", "a bzip2 file", _UNPACK),
    Kind(0, b"\x04\x22\x4d\x18", "an LZ4 file", _UNPACK),
    Kind(0, b"\x02\x21\x4c\x18", "an LZ4 file (legacy frame)", _UNPACK),
    Kind(0, b"\x89LZO", "an lzop file", _UNPACK),
    Kind(0, b"\x5d\0\0", "an lzma file", _UNPACK),
    Kind(0, b"\x27\x05\x19\x56", "a U-Boot uImage", _INSIDE),
    Kind(0, b"\xd0\x0d\xfe\xed", "a device tree or U-Boot FIT image", _INSIDE),
    Kind(0, b"ANDROID!", "an Android boot image", _INSIDE),
    Kind(0, b"PK\x03\x04", "a zip archive", _UNPACK),
    Kind(0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    Kind(257, b"ustar", "a tar archive", _UNPACK),
    Kind(0x8001, b"CD001", "an ISO 9660 disk image", _INSIDE),
    Kind(0, b"QFI\xfb", "a QEMU qcow2 disk image", _INSIDE),
    Kind(0, b"KDMV", "a VMware disk image", _INSIDE),
    Kind(0, b"conectix", "a VHD disk image", _INSIDE),
    Kind(0, b"vhdxfile", "a VHDX disk image", _INSIDE),
    Kind(0, b"hsqs", "a squashfs file system", _INSIDE),
    Kind(0x438, b"\x53\xef", "an ext2, ext3 or ext4 file system", _INSIDE),
    Kind(512, b"EFI PART", "a disk image with a GPT partition table", _INSIDE),
    Kind(0x28, b"_FVH", "a UEFI firmware volume (OVMF?)", "firmware is not a kernel: give the kernel it would start"),
    Kind(0, b"\xcf\xfa\xed\xfe", "a Mach-O program of macOS"),
    Kind(0, b"\xca\xfe\xba\xbe", "a Java class or a Mach-O program of macOS"),
    Kind(0, b"\0asm", "a WebAssembly module"),
    Kind(0, b"%PDF", "a PDF document"),
    Kind(0, b"#!", "a script", "give the kernel, not the script that makes or starts it"),
    Kind(0, b"<?xml", "an XML document"),
)

_HTML = Kind(
    0, b"<", "an HTML page", "the download gave an error page or a login page: look at it, then get the file again"
)
_TEXT = Kind(0, b"", "a text file")
_EMPTY = Kind(0, b"", "an empty file", "the download or build that made it failed: make it again")
_ZEROES = Kind(0, b"", "a file of zeroes", "the download or copy that made it failed: make it again")
_BOOT_SECTOR = Kind(510, b"\x55\xaa", "a disk image or boot sector", _INSIDE)
_UNKNOWN = Kind(0, b"", "a file of no kind known here")


def identify(source: Source) -> Kind:
    """Return what a file is that is neither an ELF nor a bzImage."""
    head = source.read(0, _WINDOW)
    if not head:
        return _EMPTY
    for kind in KINDS:
        if head.startswith(kind.magic, kind.offset):
            return kind
    boot_sector = _BOOT_SECTOR if head.startswith(_BOOT_SECTOR.magic, _BOOT_SECTOR.offset) else None
    return _pe(head) or _html(head) or _text(head) or boot_sector or (_UNKNOWN if any(head) else _ZEROES)


def _pe(head: bytes) -> Kind | None:
    """Name a DOS, Windows or EFI program; a unified kernel image has a section .linux."""
    if not head.startswith(b"MZ"):
        return None
    at = int.from_bytes(head[0x3C:0x40], "little")
    if not head.startswith(b"PE\0\0", at):
        return Kind(0, b"MZ", "a DOS program")
    if b".linux\0" in head[at : at + 0x800]:
        hint = "objcopy -O binary --only-section=.linux FILE vmlinuz, then give that"
        return Kind(at, b"PE", "a unified kernel image (an EFI program with a kernel inside)", hint)
    subsystem = int.from_bytes(head[at + 0x5C : at + 0x5E], "little")
    if 10 <= subsystem <= 13:
        return Kind(at, b"PE", "an EFI program (PE)", "firmware starts those: give the kernel's bzImage or ELF")
    return Kind(at, b"PE", "a Windows program (PE)")


def _html(head: bytes) -> Kind | None:
    start = head[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return _HTML if start.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")) else None


def _text(head: bytes) -> Kind | None:
    """Tell text by the absence of control characters."""
    control = bytes(set(range(32)) - set(b"\t\n\r\f\x1b")) + b"\x7f"
    if head[:4096].translate(None, control) != head[:4096]:
        return None
    try:
        head[:4096].decode("utf-8")
    except UnicodeDecodeError as error:
        # A character may be cut by the window's end.
        if error.start < min(len(head), 4096) - 3:
            return None
    return _TEXT
