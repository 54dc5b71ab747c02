"""The Kernel record and its parts: what a file is, before anything is decided about where it goes."""

from __future__ import annotations

from pvh.abi import elfnote
from pvh.kernel.source import Source
from pvh.record import dataclass, field

NoteValue = int | str | tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Layer:
    """One wrapping of the file, outermost first.

    format  bzImage, gzip, bzip2, xz, lzma, lz4, zstd, lzo, ELF32, ELF64
    offset  of this layer's bytes inside the layer around it
    size    of this layer's bytes as they stand there (compressed, if the layer is a compression)
    detail  what a person may want to know, such as the boot protocol of a bzImage
    """

    format: str
    offset: int
    size: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """One ELF program header (all fields as in the file; offset and sizes in bytes, paddr and vaddr in guest space)."""

    index: int
    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int

    @property
    def loads(self) -> bool:
        """Whether Xen loads it: PT_LOAD with any of R, W, X (xen/common/libelf, elf_phdr_is_loadable)."""
        return self.type == 1 and bool(self.flags & 7)

    @property
    def end(self) -> int:
        """First physical address behind it."""
        return self.paddr + self.memsz


@dataclass(frozen=True, slots=True)
class Note:
    """One ELF note.

    offset  of the note record in the (decompressed) ELF file
    where   the table entry that led to it, such as `segment 4` or `section .note.Xen`
    value   decoded by the ABI's type for that number; None when the descriptor has no decodable form
    """

    owner: str
    type: int
    name: str
    desc: bytes
    value: NoteValue
    offset: int
    where: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A reason to refuse, or a warning: what, where, what stands there, what should, what to do.

    code is stable and names the rule (docs/specification.md lists them); offset is in the (decompressed) ELF file.
    """

    code: str
    cause: str
    field: str = ""
    offset: int | None = None
    found: str = ""
    wanted: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Features:
    """Bits by XENFEAT number: what the kernel supports, and what it requires."""

    supported: int = 0
    required: int = 0


@dataclass(frozen=True, slots=True)
class Relocation:
    """PHYS32_RELOC: where else the kernel may be put, in bytes and physical addresses; last is the last byte's bound.

    Only the hypervisor's own dom0 builder moves kernels; libxenguest, and so this package, loads them at p_paddr.
    """

    align: int
    min: int
    last: int


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel image, read and judged; nothing placed.

    source    the ELF file's bytes: the file itself, or what was decompressed from it
    bits      32 or 64, the ELF class (PVH accepts both, and it says nothing of the kernel's own width)
    machine   e_machine
    type      e_type (2: ET_EXEC, 3: ET_DYN)
    e_entry   the ELF entry, which PVH does not use
    entry     PHYS32_ENTRY, physical; None when no note gives it
    start,end image span in physical addresses: lowest p_paddr and highest p_paddr + p_memsz of the segments that load,
              plus the room Xen appends for symbols when BSD_SYMTAB asks for it; 0, 0 when nothing loads
    problems  reasons to refuse by this ABI, first cause first; empty means bootable

    >>> kernel = pvh.read_kernel(pvh.demo_path())
    >>> kernel.bits, kernel.start <= kernel.entry < kernel.end
    (64, True)
    >>> [finding.cause for finding in kernel.problems]
    []
    """

    path: str
    source: Source = field(repr=False)
    layers: tuple[Layer, ...]
    bits: int
    machine: int
    e_entry: int
    segments: tuple[Segment, ...]
    notes: tuple[Note, ...]
    entry: int | None
    start: int
    end: int
    features: Features
    type: int = 2
    relocation: Relocation | None = None
    build_id: str = ""
    linux_version: str = ""
    problems: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()

    @property
    def bootable(self) -> bool:
        """Whether libxenguest's rules accept it as a PVH guest."""
        return not self.problems

    @property
    def loads(self) -> tuple[Segment, ...]:
        """The segments that Xen loads, in the file's order."""
        return tuple(segment for segment in self.segments if segment.loads)

    @property
    def min_memory(self) -> int:
        """Bytes of RAM that the image alone needs: its end, in whole pages. Modules and tables come on top."""
        return (self.end + 4095) & ~4095

    @property
    def is_linux(self) -> bool:
        """Whether it says that it is a Linux."""
        note = self.note(elfnote.GUEST_OS)
        return bool(self.linux_version) or (note is not None and note.value == "linux")

    def note(self, number: int) -> Note | None:
        """Return the last Xen note of that number, as libelf keeps the last value it reads.

        >>> kernel = pvh.read_kernel(pvh.demo_path())
        >>> kernel.note(18).name, kernel.note(18).value == kernel.entry
        ('PHYS32_ENTRY', True)
        """
        found = [note for note in self.notes if note.owner == "Xen" and note.type == number]
        return found[-1] if found else None
