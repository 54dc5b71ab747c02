"""QEMU's -kernel on x86 machines: hw/i386/x86.c decides by what the file looks like, include/hw/elf_ops.h reads ELF.

It takes any note of type 18, whatever its owner, pads notes by p_align instead of 4, and divides by it: a p_align of 0
ends QEMU itself. Each PT_NOTE overwrites what the one before gave.
"""

from __future__ import annotations

import struct
from itertools import pairwise

from pvh.hints import TYPE_CHECKING
from pvh.kernel.elf import EM_386, EM_X86_64, PT_LOAD, PT_NOTE
from pvh.kernel.loaders import Loader, Rule, outer_format

if TYPE_CHECKING:
    from pvh.kernel.record import Kernel, Segment

_X86 = "hw/i386/x86.c"
_ELF = "include/hw/elf_ops.h"
_MULTIBOOT = "hw/i386/multiboot.c"
_CORE = "hw/core/loader.c"
_PHDR = {32: 32, 64: 56}
_MULTIBOOT_MAGIC = 0x1BADB002
_FLAGS = 0x00010004
_SECTOR = 512
_FIVE_SECTORS = 5 * _SECTOR


class _DividedByZero(Exception):
    """QEMU_ALIGN_UP with an alignment of 0."""


def _e_flags(kernel: Kernel) -> int:
    flags: int = struct.unpack_from("<I", kernel.source.read(0, 64).ljust(64, b"\0"), 48 if kernel.bits == 64 else 36)[
        0
    ]
    return flags


def _multiboot(kernel: Kernel) -> bool:
    """Tell whether load_multiboot finds its header, in the first 8 KiB."""
    head = kernel.source.read(0, 8192)
    for at in range(0, len(head) - 12 + 1, 4):
        magic, flags, checksum = struct.unpack_from("<III", head, at)
        if magic == _MULTIBOOT_MAGIC and (magic + flags + checksum) & 0xFFFFFFFF == 0:
            return True
    return False


def _up(value: int, align: int) -> int:
    if align == 0:
        raise _DividedByZero
    return (value + align - 1) // align * align


def _note(kernel: Kernel, segment: Segment) -> int | None:
    """Return what one PT_NOTE gives: get_elf_note_type, then read_pvh_start_addr, which reads 4 bytes and more."""
    at = segment.offset
    while True:
        head = kernel.source.read(at, 12).ljust(12, b"\0")
        namesz, descsz, number = struct.unpack("<III", head)
        if number == 18:
            where = at + 12 + _up(namesz, segment.align)
            return int.from_bytes(kernel.source.read(where, 4), "little")
        step = 12 + _up(namesz, segment.align) + _up(descsz, segment.align)
        if step > segment.filesz or at > kernel.source.size:
            return None
        at += step


def _entry(kernel: Kernel) -> int | None:
    """Return the entry; 0 where there is none."""
    found = 0
    for segment in kernel.segments:
        if segment.type == PT_NOTE:
            given = _note(kernel, segment)
            found = found if given is None else given
    return found


def _crashes(kernel: Kernel) -> bool:
    try:
        _entry(kernel)
    except _DividedByZero:
        return True
    return False


def _not_loaded(kernel: Kernel) -> str:
    """Return why load_elf fails; "" if it does not."""
    if kernel.machine not in (EM_386, EM_X86_64):
        return f"e_machine {kernel.machine}"
    for segment in kernel.segments:
        if (
            segment.type in (PT_LOAD, PT_NOTE)
            and segment.filesz
            and segment.offset + segment.filesz > kernel.source.size
        ):
            return "a segment reaches beyond the file"
    return ""


def _no_setup(kernel: Kernel) -> bool:
    """Tell whether a bzImage's setup_sects is 0, which QEMU takes as 4, and the file is shorter than that."""
    outer = kernel.layers[0]
    return outer.format == "bzImage" and outer.size < _FIVE_SECTORS and kernel.layers[1].offset <= 2 * _SECTOR


def _endless(kernel: Kernel) -> bool:
    """Tell whether rom_reset zeroes what is left of a segment's memory behind its file bytes, and less than none is."""
    return any(segment.type == PT_LOAD and segment.filesz > segment.memsz for segment in kernel.segments)


def _overlap(kernel: Kernel) -> bool:
    """Tell whether two segments meet, once zeroes that would cover another are left out."""
    loads = [segment for segment in kernel.segments if segment.type == PT_LOAD]
    spans: list[tuple[int, int]] = []
    for one in loads:
        zeroes = (one.paddr + one.filesz, one.paddr + one.memsz)
        others = [(other.paddr, other.paddr + other.memsz) for other in loads if other is not one]
        covers = one.memsz > one.filesz and any(a < zeroes[1] and zeroes[0] < b for a, b in others)
        size = one.filesz if covers else one.memsz
        if size:
            spans.append((one.paddr, one.paddr + size))
    spans.sort()
    return any(a[1] > b[0] for a, b in pairwise(spans))


QEMU = Loader(
    "QEMU", "qemu/qemu", "7.2", "PVH, by pvh.bin or qboot", _X86, "run",
    (
        Rule(_X86, _no_setup, "qemu: invalid kernel header", why="setup_sects is 0"),
        Rule(_X86, lambda kernel: outer_format(kernel) == "bzImage", path="Linux's real-mode boot protocol"),
        Rule(_X86, lambda kernel: len(kernel.layers) > 1, "qemu: invalid kernel header", why="not unpacked"),
        Rule(_MULTIBOOT, lambda kernel: _multiboot(kernel) and kernel.bits == 64 and kernel.machine == EM_X86_64,
             "Cannot load x86-64 image, give a 32bit one.", why="a multiboot header in the first 8 KiB"),
        Rule(_MULTIBOOT, _multiboot, path="multiboot"),
        Rule(_X86, lambda kernel: bool(_e_flags(kernel) & _FLAGS), "elfboot unsupported flags = "),
        Rule(_ELF, lambda kernel: bool(_not_loaded(kernel)), "Error while loading elf kernel", why=_not_loaded),
        Rule(_ELF, _crashes, "Floating point exception (SIGFPE)", why="p_align of a PT_NOTE is 0"),
        Rule(_X86, lambda kernel: not _entry(kernel), "Error loading uncompressed kernel without PVH ELF Note"),
        Rule(_CORE, _endless, "(QEMU hangs)", why="a segment's file size is larger than its memory size"),
        Rule(_CORE, _overlap, "Some ROM regions are overlapping"),
    ),
    _entry,
)  # fmt: skip
