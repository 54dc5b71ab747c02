"""What the probe's blocks say, as named facts: numbers, texts, and the memory map."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress

from pvh.conformance.probe.capture import Block, Capture
from pvh.conformance.probe.kernel import Form, probe_file
from pvh.hints import TYPE_CHECKING
from pvh.kernel.elf import PT_LOAD, read_header, read_segments
from pvh.kernel.source import BytesSource
from pvh.record import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Value = int | str
BY_GDB = "GDB remote protocol"

GENERAL = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
SELECTORS = ("cs", "ds", "es", "ss", "fs", "gs", "ldtr", "tr")
_CONTROL = ("cr0", "cr2", "cr3", "cr4", "dr6", "dr7")
_HIDDEN = ("cs.d", "ss.b", *(f"{name}.base_0" for name in ("cs", "es", "ss")),
           *(f"{name}.limit_4g" for name in ("cs", "ds", "es", "ss")))  # fmt: skip
_TSS = ("tr.base_0", "tr.io_inside", "tr.io_outside")
_MEMORY_TYPES = {1: "RAM", 2: "reserved", 3: "ACPI", 4: "NVS", 5: "unusable", 6: "disabled", 7: "PMEM"}
MSRS = {0x1B: "apic_base", 0x2FF: "mtrr_def_type", 0x277: "pat", 0xC0000080: "efer", 0x174: "sysenter_cs",
        0xC0000082: "lstar"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Range:
    """An entry of the memory map: physical address, bytes, type."""

    address: int
    size: int
    type: int

    def __str__(self) -> str:
        return f"{self.address:#x}-{self.address + self.size:#x} {_MEMORY_TYPES.get(self.type, f'type {self.type}')}"


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of one VMM.

    name    what it is called
    how     how it was asked: the probe kernel's words, the GDB remote protocol
    facts   by name, as in docs/probe.md
    memmap  the memory map, in the VMM's order
    remarks what went wrong while asking, each a sentence's part
    """

    name: str
    how: str
    facts: dict[str, Value]
    memmap: tuple[Range, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def of_registers(self) -> bool:
        """Whether it was asked from outside, by registers and memory, and no code of ours ran there."""
        return self.how == BY_GDB

    def adding(self, facts: dict[str, Value]) -> Observation:
        """Return it with facts that another way of asking found; what is known stays."""
        return replace(self, facts={**facts, **self.facts})


def observe(capture: Capture, name: str, how: str = "probe kernel") -> Observation:
    """Return what a capture says of a VMM."""
    facts: dict[str, Value] = {"parts": capture.parts}
    for block in capture.blocks:
        reader = _READERS.get(block.tag)
        if reader:
            facts.update(_guarded(reader, block))
    modules = [block for block in capture.blocks if block.tag in ("mods", "modh", "modc")]
    facts.update(_modules(modules))
    if capture.stray:
        facts["stray_entry"] = 1
    maps = b"".join(block.data for block in capture.blocks if block.tag == "mmap")
    return Observation(name, how, facts, ranges(maps), tuple(_remarks(capture)))


def _guarded(reader: Callable[[Block], Iterator[tuple[str, Value]]], block: Block) -> dict[str, Value]:
    """Read what there is of a block; a damaged one is shorter."""
    made: dict[str, Value] = {}
    with suppress(struct.error, IndexError):
        made.update(reader(block))
    return made


def _remarks(capture: Capture) -> Iterator[str]:
    if capture.missing:
        some = ", ".join(map(str, capture.missing[:8]))
        yield f"{len(capture.missing)} lines of the probe are missing or damaged (numbers {some})"
    if capture.stray:
        yield "the loader entered at e_entry, not at PHYS32_ENTRY"
    if capture.blocks and capture.parts == 0:
        yield "the probe did not come to the end of its first part"


def ranges(data: bytes) -> tuple[Range, ...]:
    """Return the entries of a memory map's bytes (public/arch-x86/hvm/start_info.h, hvm_memmap_table_entry)."""
    return tuple(Range(*struct.unpack_from("<QQI", data, at)) for at in range(0, len(data) - 23, 24))


def _registers(block: Block) -> Iterator[tuple[str, Value]]:
    data = block.data
    yield from zip(GENERAL, struct.unpack_from("<8I", data, 0), strict=True)
    yield from zip(SELECTORS, struct.unpack_from("<8H", data, 32), strict=True)
    for at, name in ((48, "gdtr"), (54, "idtr")):
        limit, base = struct.unpack_from("<HI", data, at)
        yield f"{name}.base", base
        yield f"{name}.limit", limit
    yield "eflags", struct.unpack_from("<I", data, 60)[0]
    yield from zip(_CONTROL, struct.unpack_from("<6I", data, 64), strict=True)
    yield "eip.offset", struct.unpack_from("<I", data, 88)[0]
    yield "bss.nonzero", struct.unpack_from("<I", data, 92)[0]


def _code(block: Block) -> Iterator[tuple[str, Value]]:
    size, said = struct.unpack_from("<II", block.data)
    files: tuple[Form, ...] = ("elf32", "elf64")
    yield "code.intact", int(said in [zlib.crc32(_loaded(form, block.address, size)) for form in files])


def _loaded(form: Form, address: int, size: int) -> bytes:
    """Return what a build of the probe has at an address."""
    source = BytesSource(form, probe_file(form))
    load = next(load for load in read_segments(source, read_header(source)) if load.type == PT_LOAD)
    return source.read(load.offset + address - load.paddr, size)


def start_info(block: Block) -> Iterator[tuple[str, Value]]:
    """Give the fields of start_info, 40 or 56 bytes by its version."""
    yield "start_info.paddr", block.address
    names = ("magic", "version", "flags", "nr_modules", "modlist_paddr", "cmdline_paddr", "rsdp_paddr")
    fields = dict(zip(names, struct.unpack_from("<IIIIQQQ", block.data), strict=True))
    for name, value in fields.items():
        yield f"start_info.{name}", value
    if fields["version"] >= 1:
        later = ("memmap_paddr", "memmap_entries", "reserved")
        for name, value in zip(later, struct.unpack_from("<QII", block.data, 40), strict=True):
            yield f"start_info.{name}", value


def text(data: bytes) -> str:
    """Return a string up to its NUL."""
    return data.split(b"\0", 1)[0].decode("utf-8", errors="backslashreplace")


def _modules(blocks: list[Block]) -> Iterator[tuple[str, Value]]:
    """Give each module's fields, what it begins with, and its command line."""
    for entries in (block for block in blocks if block.tag == "mods"):
        for index in range(len(entries.data) // 32):
            paddr, size, cmdline, _ = struct.unpack_from("<4Q", entries.data, 32 * index)
            yield f"module{index}.paddr", paddr
            yield f"module{index}.size", size
            yield f"module{index}.cmdline_paddr", cmdline
            for block in blocks:
                if block.tag == "modh" and block.address == paddr:
                    yield f"module{index}.head", block.data.hex()
                if block.tag == "modc" and cmdline and block.address == cmdline:
                    yield f"module{index}.cmdline", text(block.data)


def rsdp(block: Block) -> Iterator[tuple[str, Value]]:
    """Give what the RSDP says of itself (ACPI 6.5, 5.2.5.3)."""
    data = block.data
    yield "rsdp.paddr", block.address
    yield "rsdp.found", int(data[:8] == b"RSD PTR ")
    yield "rsdp.revision", data[15]
    yield "rsdp.sums", int(not sum(data[:20]) & 0xFF and (data[15] < 2 or not sum(data[:36]) & 0xFF))
    yield "rsdp.oem", data[9:15].decode("latin-1").rstrip("\0 ")


def _root(block: Block) -> Iterator[tuple[str, Value]]:
    yield "acpi_root.signature", block.data[:4].decode("latin-1")
    yield "acpi_root.length", struct.unpack_from("<I", block.data, 4)[0]


def _leaf(block: Block) -> Iterator[tuple[str, Value]]:
    words = struct.unpack_from("<4I", block.data)
    yield f"cpuid.{block.address:x}", " ".join(f"{word:08x}" for word in words)


def _msr(block: Block) -> Iterator[tuple[str, Value]]:
    if block.data:
        yield f"msr.{MSRS.get(block.address, f'{block.address:x}')}", struct.unpack_from("<Q", block.data)[0]


def _words(names: tuple[str, ...]) -> Callable[[Block], Iterator[tuple[str, Value]]]:
    def read(block: Block) -> Iterator[tuple[str, Value]]:
        yield from zip(names, struct.unpack_from(f"<{len(names)}I", block.data), strict=True)

    return read


def _tss(block: Block) -> Iterator[tuple[str, Value]]:
    # The interrupt from CPL 3 pushed SS, ESP, EFLAGS, CS and EIP to the stack that the TSS at 0 names.
    base, inside, outside = struct.unpack_from("<iII", block.data)
    yield from zip(_TSS, (int(base == -20), inside, outside), strict=True)


def _raw(name: str) -> Callable[[Block], Iterator[tuple[str, Value]]]:
    def read(block: Block) -> Iterator[tuple[str, Value]]:
        yield name, block.data.hex()

    return read


def _apic(block: Block) -> Iterator[tuple[str, Value]]:
    version, number = struct.unpack_from("<II", block.data)
    yield "apic.version", version
    yield "apic.id", number >> 24


_READERS: dict[str, Callable[[Block], Iterator[tuple[str, Value]]]] = {
    "regs": _registers,
    "code": _code,
    "stck": _raw("stack"),
    "gdt_": _raw("gdt"),
    "info": start_info,
    "cmdl": lambda block: iter((("cmdline", text(block.data)),)),
    "rsdp": rsdp,
    "xsdt": _root,
    "cpid": _leaf,
    "hidn": _words(_HIDDEN),
    "msr_": _msr,
    "apic": _apic,
    "tss_": _tss,
}
