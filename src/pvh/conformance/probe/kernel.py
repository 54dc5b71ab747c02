"""The probe kernel's files: two ELF classes, and a bzImage around one."""

from __future__ import annotations

import gzip
import os
import struct

from pvh.hints import Literal

Form = Literal["elf32", "elf64", "bzimage"]
FORMS: tuple[Form, ...] = ("elf32", "elf64", "bzimage")

_HERE = os.path.dirname(os.path.abspath(__file__))
_SETUP_SECTORS = 1
_HIGHEST = 0x7FFF_FFFF  # address of a module's last byte, as Linux has it
_STUB = b"\xfa\xf4\xeb\xfd"  # cli; hlt; jmp to the hlt: the loader took it for a Linux, and entered that way


def probe_path(form: Form = "elf32") -> str:
    """Return the path of an ELF file of the probe."""
    return os.path.join(_HERE, f"probe{form[3:]}.elf")


def probe_file(form: Form) -> bytes:
    """Return the probe as a file's bytes."""
    if form == "bzimage":
        return bzimage(probe_file("elf32"))
    with open(probe_path(form), "rb") as file:
        return file.read()


def bzimage(elf: bytes) -> bytes:
    """Return a bzImage whose payload is a kernel (Linux's Documentation/arch/x86/boot.rst, protocol 2.8)."""
    payload = gzip.compress(elf, 9, mtime=0)
    code = _STUB.ljust(16, b"\0") + payload
    code = code.ljust(-(-len(code) // 16) * 16, b"\0")
    head = bytearray((_SETUP_SECTORS + 1) * 512)
    head[0x1F1] = _SETUP_SECTORS
    struct.pack_into("<I", head, 0x1F4, len(code) // 16)  # syssize
    head[0x1FE:0x206] = b"\x55\xaa\xeb\x66HdrS"
    struct.pack_into("<H", head, 0x206, 0x0208)
    head[0x211] = 1  # LOADED_HIGH
    struct.pack_into("<I", head, 0x214, 0x100000)  # code32_start
    struct.pack_into("<I", head, 0x22C, _HIGHEST)  # initrd_addr_max: with 0 a loader has no room for a module
    struct.pack_into("<II", head, 0x248, 16, len(payload))
    head[0x268:0x26C] = b"\xf4\xeb\xfd\x90"  # where the jump at 0x200 goes: real-mode code, which stops
    return bytes(head) + code
