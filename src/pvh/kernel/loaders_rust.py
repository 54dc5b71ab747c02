"""rust-vmm's linux-loader, and the VMMs that load by it: Firecracker, Cloud Hypervisor, libkrun.

It reads ELF64 only (an ELF32 header has other fields at the same places), and takes the first note of type 18 and owner
Xen of the last PT_NOTE. What does not fit into memory is noticed by file bytes alone, not by p_memsz. Pull request 227
of 2026, not in a release yet, would refuse a PT_LOAD whose p_align is no multiple of 2 MiB.
"""

from __future__ import annotations

import struct

from pvh.hints import TYPE_CHECKING
from pvh.kernel.elf import PT_LOAD, PT_NOTE
from pvh.kernel.loaders import Loader, Rule, outer_format
from pvh.record import dataclass

if TYPE_CHECKING:
    from pvh.kernel.record import Kernel, Segment

_FILE = "src/loader/elf/mod.rs"
_HIGH_RAM = 1 << 20  # Firecracker's HIMEM_START, Cloud Hypervisor's HIGH_RAM_START
_PHDR, _EHDR = 56, 64


def _head(kernel: Kernel) -> bytes:
    return kernel.source.read(0, _EHDR).ljust(_EHDR, b"\0")


def _e_entry(kernel: Kernel) -> int:
    """Return e_entry as an ELF64 header has it, whatever the class."""
    entry: int = struct.unpack_from("<Q", _head(kernel), 24)[0]
    return entry


def _phentsize(kernel: Kernel) -> int:
    size: int = struct.unpack_from("<H", _head(kernel), 54)[0]
    return size


def _phoff(kernel: Kernel) -> int:
    offset: int = struct.unpack_from("<Q", _head(kernel), 32)[0]
    return offset


@dataclass(frozen=True, slots=True)
class _Failure:
    """What loading fails with: linux-loader's words, and the cause where they do not name it."""

    text: str
    why: str = ""
    inner: bool = True  # one of elf::Error, which loader::Error puts its own words before


class _Bad(Exception):
    """What parse_elf_note fails with."""


def _note(kernel: Kernel, segment: Segment) -> int | None:
    """Return PHYS32_ENTRY of one PT_NOTE (parse_elf_note). Raises _Bad, with the error's words."""
    at = 0
    while at < segment.filesz:
        head = kernel.source.read(segment.offset + at, 12)
        if len(head) < 12:
            raise _Bad("Unable to read note header")
        namesz, descsz, number = struct.unpack("<III", head)
        if number == 18 and namesz == 4:
            name = kernel.source.read(segment.offset + at + 12, 4)
            if len(name) < 4:
                raise _Bad("Unable to read note header")
            if name == b"Xen\0":
                return _descriptor(kernel, segment.offset + at + 16, descsz)
        at += 12 + (namesz + 3 & ~3) + (descsz + 3 & ~3)
    return None


def _descriptor(kernel: Kernel, where: int, descsz: int) -> int:
    if descsz < 4:
        raise _Bad("Invalid PVH note header")
    desc = kernel.source.read(where, 4)
    if len(desc) < 4:
        raise _Bad("Unable to read note header")
    return int.from_bytes(desc, "little")


def _of_segment(kernel: Kernel, segment: Segment) -> _Failure | None:
    if segment.type == PT_NOTE:
        try:
            _note(kernel, segment)
        except _Bad as error:
            return _Failure(str(error))
    elif segment.type == PT_LOAD and segment.filesz:
        if segment.offset + segment.filesz > kernel.source.size:
            return _Failure("Unable to read kernel image", "a segment reaches beyond the file")
        if segment.paddr + segment.filesz > 1 << 32:
            return _Failure("Unable to read kernel image", "a segment is above 4 GiB, where a small guest has no RAM")
        if segment.paddr + segment.memsz >= 1 << 64:
            return _Failure("memory to load kernel image is not enough", "p_paddr + p_memsz passes 2^64", inner=False)
    return None


def _failure(kernel: Kernel, lowest: int = 0) -> _Failure | None:
    """Return what Elf::load fails with, given a lowest e_entry; None if it does not."""
    if len(kernel.layers) > 1:
        return _Failure("Invalid Elf magic number")
    if _phentsize(kernel) != _PHDR:
        return _Failure("Invalid program header size", "no ELF64" if kernel.bits != 64 else "")
    if _phoff(kernel) < _EHDR:
        return _Failure("Invalid program header offset")
    if _e_entry(kernel) < lowest:
        return _Failure("Invalid entry address", "e_entry is below 1 MiB")
    return next(filter(None, (_of_segment(kernel, segment) for segment in kernel.segments)), None)


def _entry(kernel: Kernel) -> int | None:
    """Return the entry of the last PT_NOTE: each one overwrites what the one before gave."""
    found: int | None = None
    for segment in kernel.segments:
        if segment.type == PT_NOTE:
            found = _note(kernel, segment)
    return found


def _no_entry(kernel: Kernel) -> bool:
    return _entry(kernel) is None


def _refuses(source: str, says: str, lowest: int = 0) -> Rule:
    """Return the rule of a VMM that ends where Elf::load fails, and prints its words behind its own."""

    def words(kernel: Kernel) -> str:
        failure = _failure(kernel, lowest) or _Failure("")
        outer = "Kernel Loader: failed to load ELF kernel image: " if failure.inner else ""
        return f"{says}{outer}Kernel Loader: {failure.text}"

    def why(kernel: Kernel) -> str:
        failure = _failure(kernel, lowest)
        return failure.why if failure else ""

    return Rule(source, lambda kernel: _failure(kernel, lowest) is not None, words, why=why)


def _no_elf(kernel: Kernel) -> str:
    failure = _failure(kernel, _HIGH_RAM)
    return f"as an ELF: {failure.text}{', ' if failure.why else ''}{failure.why}" if failure else ""


def _bzimage(kernel: Kernel) -> bool:
    return outer_format(kernel) == "bzImage"


_CRATE = "0.13"
_BZIMAGE = "src/loader/bzimage/mod.rs"
_FIRECRACKER = "src/vmm/src/arch/x86_64/mod.rs"
_CLOUD = "vmm/src/vm.rs"
_KRUN = "src/vmm/src/builder.rs"
_BY = f", by {_FILE} of rust-vmm/linux-loader {_CRATE}"
_LINUX64 = "Linux's 64-bit boot protocol, at e_entry"

LINUX_LOADER = Loader(
    "linux-loader", "rust-vmm/linux-loader", f"{_CRATE}, as Firecracker and libkrun have it", "PVH", _FILE, "run",
    (
        Rule(_BZIMAGE, _bzimage, path="Linux, if the VMM calls its bzImage loader", verified="read"),
        _refuses(_FILE, ""),
        Rule(_FILE, _no_entry, path="left to the VMM: e_entry", why="no PHYS32_ENTRY", verified="read"),
    ),
    _entry,
)  # fmt: skip

FIRECRACKER = Loader(
    "Firecracker", "firecracker-microvm/firecracker", "1.12.1", "PVH", _FIRECRACKER + _BY, "run",
    (
        Rule(_FIRECRACKER + _BY, _bzimage,
             "Cannot load kernel due to invalid memory configuration or invalid kernel image:"
             " Kernel Loader: failed to load ELF kernel image: Kernel Loader: Invalid Elf magic number",
             why="from pull request 6037 of July 2026 on it boots a bzImage by Linux's 64-bit protocol"),
        _refuses(_FIRECRACKER + _BY,
                 "Cannot load kernel due to invalid memory configuration or invalid kernel image: ", _HIGH_RAM),
        Rule(_FIRECRACKER, _no_entry, path=_LINUX64, why="no PHYS32_ENTRY"),
    ),
    _entry,
)  # fmt: skip

# Any failure as an ELF leads to the bzImage loader (from v39 on), whose failure is what it tells (release-notes.md).
CLOUD_HYPERVISOR = Loader(
    "Cloud Hypervisor", "cloud-hypervisor/cloud-hypervisor", "sources of 2025, about v47", "PVH", _CLOUD, "read",
    (
        Rule(f"{_CLOUD}, by {_BZIMAGE} of rust-vmm/linux-loader", _bzimage, path="Linux's 32-bit boot protocol"),
        Rule(_CLOUD, lambda kernel: _failure(kernel, _HIGH_RAM) is not None,
             "Kernel Loader: failed to load bzImage kernel image", why=_no_elf),
        Rule(_CLOUD, _no_entry, "Kernel lacks PVH header"),
    ),
    _entry,
)  # fmt: skip

LIBKRUN = Loader(
    "libkrun", "libkrun/libkrun", "2026, with PVH; the build in smolmachines 1.32.2; format ELF", "PVH", _KRUN + _BY,
    "run",
    (
        Rule(_KRUN + _BY, _bzimage,
             "Cannot load the kernel into the VM:"
             " Kernel Loader: failed to load ELF kernel image: Kernel Loader: Invalid Elf magic number",
             why="with another format than ELF it unpacks gzip, bzip2 or zstd, and goes by Linux's protocol"),
        _refuses(_KRUN + _BY, "Cannot load the kernel into the VM: "),
        Rule(_KRUN, _no_entry, path=_LINUX64, why="no PHYS32_ENTRY"),
    ),
    _entry,
)  # fmt: skip
