"""Every guest-physical address the builder chooses, with its reason.

These are libxl's and libxenguest's choices for a PVH domU, so that a guest sees here what it sees on Xen. Sources are
paths in the Xen tree: xenguest.h is tools/include/xenguest.h, hvm/e820.h is xen/include/public/hvm/e820.h.
"""

from __future__ import annotations

from pvh.abi.x86 import PAGE_SIZE
from pvh.hints import TYPE_CHECKING
from pvh.record import dataclass

if TYPE_CHECKING:
    from pvh.plan.record import RangeKind

GIB4 = 1 << 32

# Guests are offered this much physical address space; 40 bits is what the smallest 64-bit processors decode.
PHYSICAL_END = 1 << 40

# RAM starts at 0 and has no VGA or BIOS hole: a PVH guest has neither. Below 4 GiB it ends where libxl's hole starts,
# the lowest of the ACPI area, the local APIC and the special pages (libxl_x86.c, libxl__arch_domain_construct_memmap;
# libxl_dom.c, mmio_start). What does not fit below continues at 4 GiB.
LOW_RAM_END = 0xFC00_0000
HIGH_RAM_START = GIB4

# What a kernel loaded so high that nothing fits above it gets instead: the places are tried in this order. Linux marks
# 0xa0000-0xfffff reserved on its own (arch/x86/platform/pvh/enlighten.c), so nothing goes there; page 0 is never
# used, since an address of 0 means "absent" in start_info.
BELOW_KERNEL = 0x10_0000
BELOW_ISA_HOLE = (PAGE_SIZE, 0xA_0000)

MAX_VCPUS = 128  # HVM_MAX_VCPUS, public/hvm/hvm_info_table.h
APIC_ID_STRIDE = 2  # local APIC id = 2 * vCPU id: libxl_x86_acpi.c, acpi_lapic_id; the same in CPUID leaves 1 and 0xb


@dataclass(frozen=True, slots=True)
class Place:
    """A fixed range: guest-physical start, size in bytes, what it is, and why it is there."""

    start: int
    size: int
    kind: RangeKind
    name: str
    reason: str

    @property
    def end(self) -> int:
        """First address behind it."""
        return self.start + self.size


ACPI_INFO = Place(
    0xFC00_0000, PAGE_SIZE, "acpi", "acpi_info", "fixed address the DSDT reads (ACPI_INFO_PHYSICAL_ADDRESS, hvm/e820.h)"
)
# The tables follow at once, so that the memory map has no gap there; libxl gives them 16 pages and announces those in
# use, with the RSDP on the page behind (libxl_x86_acpi.c, libxl__dom_load_acpi).
ACPI_TABLES = ACPI_INFO.end
ACPI_TABLES_ROOM = 16 * PAGE_SIZE
RSDP_SIZE = 64

# The last 64 bytes of the BIOS area, where ACPI's own search finds it: for a GUEST_OS of exactly "linux" without
# linux_rsdp_unrestricted, as such a Linux ignores rsdp_paddr (libxl_x86_acpi.c).
RSDP_BIOS = 0x10_0000 - RSDP_SIZE

LOCAL_APIC = Place(
    0xFEE0_0000, PAGE_SIZE, "hole", "local APIC", "architectural; the processor answers here (LAPIC_BASE_ADDRESS)"
)

SPECIAL_START = 0xFEFF_8000
_SPECIAL_USES = (
    ("PAGING", "memory paging ring of the toolstack; unused, zero"),
    ("ACCESS", "memory access ring of the toolstack; unused, zero"),
    ("SHARING", "memory sharing ring of the toolstack; unused, zero"),
    ("BUFIOREQ", "buffered I/O requests to a device model; none here, zero"),
    ("XENSTORE", "xenstore ring, HVM_PARAM_STORE_PFN"),
    ("IOREQ", "I/O requests to a device model; none here, zero"),
    ("IDENT_PT", "identity page directory for processors that cannot run unpaged, HVM_PARAM_IDENT_PT"),
    ("CONSOLE", "console ring, HVM_PARAM_CONSOLE_PFN"),
)
SPECIAL_PAGES = tuple(
    Place(SPECIAL_START + index * PAGE_SIZE, PAGE_SIZE, "special", f"{name} page", f"{use} (xenguest.h)")
    for index, (name, use) in enumerate(_SPECIAL_USES)
)

# Reasons of what has no fixed address.
KERNEL_REASON = "where the ELF segment's p_paddr says (libelf-loader.c)"
MODULE_AFTER_KERNEL = "next page behind the kernel, as MOD_START_PFN is absent or 0 (xg_dom_core.c)"
MODULE_AFTER_START_INFO = "next page behind start_info, as MOD_START_PFN is not 0 (xg_dom_core.c)"
BELOW_REASON = "below the kernel, as there is no room above it"
START_INFO_AFTER_KERNEL = "next page behind the kernel (xg_dom_x86.c)"
START_INFO_AFTER_MODULES = "next page behind the modules (xg_dom_x86.c)"
START_INFO_REASON = "EBX points here; 56 bytes in any version, as Linux copies that many"
CMDLINE_REASON = "in the start_info segment, NUL-terminated (xg_dom_x86.c)"
MODLIST_REASON = "in the start_info segment, one entry for each module (xg_dom_x86.c)"
MODULE_CMDLINE_REASON = "in the start_info segment, NUL-terminated (xg_dom_x86.c)"
MEMMAP_REASON = "in the start_info segment, the memory map of version 1 (xg_dom_x86.c)"
TABLES_REASON = "behind acpi_info, 16-byte aligned (tools/libacpi/build.c)"
RSDP_HIGH_REASON = "page behind the tables; start_info.rsdp_paddr names it (libxl_x86_acpi.c)"
RSDP_BIOS_REASON = "end of the BIOS area: a Linux without linux_rsdp_unrestricted searches there (libxl_x86_acpi.c)"


def page_down(address: int) -> int:
    """Round down to a page boundary."""
    return address & -PAGE_SIZE


def page_up(address: int) -> int:
    """Round up to a page boundary."""
    return -(-address // PAGE_SIZE) * PAGE_SIZE


def apic_id(vcpu: int) -> int:
    """Return the local APIC id of a vCPU."""
    return APIC_ID_STRIDE * vcpu
