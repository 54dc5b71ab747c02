"""rust-vmm's linux-loader, and the VMMs that load by it: Firecracker, Cloud Hypervisor, libkrun.

It reads ELF64 only (an ELF32 header has other fields at the same places), wants each PT_LOAD's p_align to be a multiple
of 2 MiB, and takes the first note of type 18 and owner Xen of the last PT_NOTE.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from pvh.hints import TYPE_CHECKING
from pvh.kernel.elf import PT_LOAD, PT_NOTE
from pvh.kernel.loaders import Loader, Rule, outer_format
from pvh.record import replace

if TYPE_CHECKING:
    from pvh.kernel.record import Kernel, Segment

_FILE = "src/loader/elf/mod.rs"
_ALIGN = 2 << 20
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


def _read(kernel: Kernel) -> list[Segment]:
    """Return the PT_LOADs it copies, in order, and the PT_NOTEs."""
    return [s for s in kernel.segments if (s.type == PT_LOAD and s.filesz) or s.type == PT_NOTE]


class _Bad(Exception):
    """What parse_elf_note fails with."""


def _note(kernel: Kernel, segment: Segment) -> int | None:
    """Return PHYS32_ENTRY of one PT_NOTE (parse_elf_note). Raises _Bad, with the error's name."""
    at = 0
    while at < segment.filesz:
        head = kernel.source.read(segment.offset + at, 12)
        if len(head) < 12:
            raise _Bad("Unable to read note header")
        namesz, descsz, number = struct.unpack("<III", head)
        if number == 18 and namesz == 4 and kernel.source.read(segment.offset + at + 12, 4) == b"Xen\0":
            if descsz < 4:
                raise _Bad("Invalid PVH note header")
            desc = kernel.source.read(segment.offset + at + 16, 4)
            if len(desc) < 4:
                raise _Bad("Unable to read note header")
            return int.from_bytes(desc, "little")
        at += 12 + (namesz + 3 & ~3) + (descsz + 3 & ~3)
    return None


def _first_error(kernel: Kernel) -> str:
    """Return what loading fails with, in the order of the program headers; "" if it does not."""
    for segment in _read(kernel):
        if segment.type == PT_NOTE:
            try:
                _note(kernel, segment)
            except _Bad as error:
                return str(error)
        elif segment.align & _ALIGN - 1:
            return "Invalid alignment: p_align is no multiple of 2 MiB"
        elif segment.offset + segment.filesz > kernel.source.size or segment.paddr + segment.memsz > 1 << 32:
            return "Unable to read kernel image"
    return ""


def _entry(kernel: Kernel) -> int | None:
    """Return the entry of the last PT_NOTE: each one overwrites what the one before gave."""
    found: int | None = None
    for segment in kernel.segments:
        if segment.type == PT_NOTE:
            found = _note(kernel, segment)
    return found


def _no_entry(kernel: Kernel) -> bool:
    return _entry(kernel) is None


def _low_entry(kernel: Kernel) -> bool:
    return _e_entry(kernel) < _HIGH_RAM


def _rules(says: str, *, low: bool, elsewhere: str, bzimage: str, missing: str = "") -> tuple[Rule, ...]:
    """Return the checks of linux-loader as a VMM uses it.

    says       what the VMM prints of a failure: linux-loader's own word for each is "failed to load ELF kernel image"
    low        it gives a lowest address for e_entry
    elsewhere  how it boots an ELF without a PVH entry; "": not, and says `missing`
    bzimage    how it boots a bzImage; "": not
    """

    def wrapped(kernel: Kernel) -> bool:
        return outer_format(kernel) == "bzImage"

    def bad(applies: Callable[[Kernel], bool], why: str | Callable[[Kernel], str]) -> Rule:
        return Rule(_FILE, applies, says + "Kernel Loader: failed to load ELF kernel image", why=why)

    return (
        *((Rule("src/loader/bzimage/mod.rs", wrapped, path=bzimage),) if bzimage else ()),
        bad(lambda kernel: len(kernel.layers) > 1, "Invalid Elf magic number"),
        bad(lambda kernel: _phentsize(kernel) != _PHDR, "Invalid program header size"),
        bad(lambda kernel: _phoff(kernel) < _EHDR, "Invalid program header offset"),
        *((bad(_low_entry, "Invalid entry address: e_entry is below 1 MiB"),) if low else ()),
        bad(lambda kernel: bool(_first_error(kernel)), _first_error),
        Rule(_FILE, _no_entry, missing, elsewhere, why="no PHYS32_ENTRY"),
    )


def _loader(name: str, repository: str, version: str, source: str, rules: tuple[Rule, ...]) -> Loader:
    return Loader(name, repository, version, "PVH", source, rules, _entry)


LINUX_LOADER = _loader(
    "linux-loader", "rust-vmm/linux-loader", "0.13", _FILE,
    _rules("", low=False, elsewhere="left to the VMM: e_entry", bzimage="its bzImage loader, if the VMM calls it"),
)  # fmt: skip


def _from(source: str, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Return rules with the VMM's file named before linux-loader's."""
    return tuple(replace(rule, source=f"{source}, by linux-loader's {rule.source}") for rule in rules)


_FIRECRACKER = "src/vmm/src/arch/x86_64/mod.rs"
_CLOUD = "vmm/src/vm.rs"
_KRUN = "src/vmm/src/builder.rs"
_LINUX64 = "Linux's 64-bit boot protocol, at e_entry"

FIRECRACKER = _loader(
    "Firecracker", "firecracker-microvm/firecracker", "1.12", _FIRECRACKER,
    _from(_FIRECRACKER, _rules("Cannot load kernel due to invalid memory configuration or invalid kernel image: ",
                               low=True, elsewhere=_LINUX64, bzimage="")),
)  # fmt: skip
CLOUD_HYPERVISOR = _loader(
    "Cloud Hypervisor", "cloud-hypervisor/cloud-hypervisor", "44 and later", _CLOUD,
    _from(_CLOUD, _rules("Cannot load the kernel into memory: ", low=True, elsewhere="",
                         bzimage="Linux's 32-bit boot protocol", missing="Kernel lacks PVH header")),
)  # fmt: skip
LIBKRUN = _loader(
    "libkrun", "containers/libkrun", "main of 2026; before, PVH is ignored", _KRUN,
    _from(_KRUN, _rules("Cannot load the kernel into the VM: ", low=False, elsewhere=_LINUX64, bzimage="")),
)  # fmt: skip
