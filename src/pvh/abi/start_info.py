"""hvm_start_info, its module list and memory map.

Sources: xen/include/public/arch-x86/hvm/start_info.h; the 2015 thread (Draft C) for the 20-byte layout.
All fields little-endian; every address is guest physical.
"""

MAGIC = 0x336EC578  # "xEn3" with bit 7 of the "E" set

SIF_PRIVILEGED = 1 << 0
SIF_INITDOMAIN = 1 << 1
SIF_MULTIBOOT_MOD = 1 << 2
SIF_MOD_START_PFN = 1 << 3
SIF_VIRT_P2M_4TOOLS = 1 << 4
SIF_PM_MASK = 0xFF << 8

# Draft C: magic, flags, cmdline_paddr, nr_modules, modlist_paddr
DRAFT_C = "<IIIII"
DRAFT_C_MODULE = "<II"  # paddr, size

# Version 0: magic, version, flags, nr_modules, modlist_paddr, cmdline_paddr, rsdp_paddr
V0 = "<IIIIQQQ"
# Version 1 appends: memmap_paddr, memmap_entries, reserved
V1 = "<IIIIQQQQII"
MODULE = "<QQQQ"  # paddr, size, cmdline_paddr, reserved
MEMMAP_ENTRY = "<QQII"  # addr, size, type, reserved

# Linux copies this much from %ebx whatever the version (arch/x86/platform/pvh/head.S), so this much must be readable.
READABLE_SIZE = 56

MEMMAP_TYPE_RAM = 1
MEMMAP_TYPE_RESERVED = 2
MEMMAP_TYPE_ACPI = 3
MEMMAP_TYPE_NVS = 4
MEMMAP_TYPE_UNUSABLE = 5
MEMMAP_TYPE_DISABLED = 6
MEMMAP_TYPE_PMEM = 7

MEMMAP_NAMES = {
    MEMMAP_TYPE_RAM: "RAM",
    MEMMAP_TYPE_RESERVED: "RESERVED",
    MEMMAP_TYPE_ACPI: "ACPI",
    MEMMAP_TYPE_NVS: "NVS",
    MEMMAP_TYPE_UNUSABLE: "UNUSABLE",
    MEMMAP_TYPE_DISABLED: "DISABLED",
    MEMMAP_TYPE_PMEM: "PMEM",
}
