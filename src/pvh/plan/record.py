"""The Plan record: where every byte of guest-physical memory goes, and why."""

from __future__ import annotations

from pvh.abi.start_info import MEMMAP_TYPE_RAM
from pvh.hints import Literal
from pvh.kernel.record import Kernel
from pvh.kernel.source import Source
from pvh.plan.options import BootOptions
from pvh.record import dataclass, field


@dataclass(frozen=True, slots=True)
class FileBytes:
    """count bytes of a source, from offset; whatever of the range lies behind them is zero."""

    source: Source = field(repr=False)
    offset: int
    count: int


@dataclass(frozen=True, slots=True)
class LiteralBytes:
    """Bytes the planner made: an ACPI table, a command line. Whatever of the range lies behind them is zero."""

    data: bytes = field(repr=False)


Content = FileBytes | LiteralBytes | None
RangeKind = Literal["kernel", "module", "start-info", "acpi", "special", "hole"]


@dataclass(frozen=True, slots=True)
class Range:
    """A range of guest-physical addresses with one owner.

    content  what fills it; None is zeroes (or, for a hole, nothing at all)
    reason   why it is there, for the reader of `pvh plan`, with the source of the rule

    Kind start-info is the start_info segment in one range for each part, at Plan.start_info's addresses: `start_info`,
    `cmdline`, `modlist`, `module N cmdline`, `memmap`, those that exist. The strings carry their bytes; start_info,
    modlist and memmap carry None and are packed by build/start_info.py from Plan.start_info and Plan.memmap.

    Kind kernel is what libelf leaves in memory: where segments overlap, the later one's bytes and its zeroes; such a
    segment may have several ranges.
    """

    start: int
    size: int
    kind: RangeKind
    name: str
    reason: str
    content: Content = None

    @property
    def end(self) -> int:
        """First address behind it."""
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class MemoryMapEntry:
    """One entry of start_info's memmap and of XENMEM_memory_map; type by MEMMAP_TYPE_*, or one nobody knows."""

    addr: int
    size: int
    type: int

    @property
    def end(self) -> int:
        """First address behind it."""
        return self.addr + self.size


@dataclass(frozen=True, slots=True)
class PlacedModule:
    """A module as start_info lists it: physical address, size in bytes, address of its command line (0: none)."""

    path: str
    paddr: int
    size: int
    cmdline_paddr: int


@dataclass(frozen=True, slots=True)
class StartInfo:
    """Values of hvm_start_info; the ABI asked for decides which exist. Addresses are physical, 0 is absent.

    memmap is what stands at memmap_paddr; None: the plan's memory map as it is.
    """

    paddr: int
    flags: int
    cmdline_paddr: int
    modlist_paddr: int
    modules: tuple[PlacedModule, ...]
    rsdp_paddr: int
    memmap_paddr: int
    memmap: tuple[MemoryMapEntry, ...] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Every address decided.

    ranges      what occupies guest-physical memory, sorted, disjoint; free RAM is what the memory map says less these
    memory_map  sorted, disjoint
    backed      the parts of guest-physical space that the build must back with host memory, as (start, size), sorted;
                these are RAM plus the NVS and special pages
    entry       physical address of the first instruction

    >>> plan = pvh.plan(pvh.read_kernel(pvh.demo_path()), pvh.BootOptions(cmdline="hello"))
    >>> [(piece.name, piece.size) for piece in plan.ranges if piece.start == plan.start_info.cmdline_paddr]
    [('cmdline', 6)]
    """

    kernel: Kernel
    options: BootOptions
    ranges: tuple[Range, ...]
    memory_map: tuple[MemoryMapEntry, ...]
    backed: tuple[tuple[int, int], ...]
    entry: int
    start_info: StartInfo
    warnings: tuple[str, ...] = ()

    @property
    def memmap(self) -> tuple[MemoryMapEntry, ...]:
        """The memory map as start_info shows it."""
        return self.memory_map if self.start_info.memmap is None else self.start_info.memmap

    @property
    def ram(self) -> int:
        """Bytes of RAM the memory map announces."""
        return sum(entry.size for entry in self.memory_map if entry.type == MEMMAP_TYPE_RAM)
