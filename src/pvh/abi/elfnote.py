"""XEN_ELFNOTE_*: numbers, names and value kinds of the notes whose owner is `Xen`.

Source: xen/include/public/elfnote.h; the kinds are libelf's (xen/common/libelf/libelf-dominfo.c), except where libelf
looks at a name only: then they are the header's own description of the descriptor.
"""

OWNER = "Xen"

INFO = 0
ENTRY = 1
HYPERCALL_PAGE = 2
VIRT_BASE = 3
PADDR_OFFSET = 4
XEN_VERSION = 5
GUEST_OS = 6
GUEST_VERSION = 7
LOADER = 8
PAE_MODE = 9
FEATURES = 10
BSD_SYMTAB = 11
HV_START_LOW = 12
L1_MFN_VALID = 13
SUSPEND_CANCEL = 14
INIT_P2M = 15
MOD_START_PFN = 16
SUPPORTED_FEATURES = 17
PHYS32_ENTRY = 18
PHYS32_RELOC = 19

MAX = PHYS32_RELOC

INTEGER = "integer"  # 1, 2, 4 or 8 bytes; any other size reads as 0
STRING = "string"  # NUL-terminated
WORDS = "words"  # an array of u32
BITMAP = "bitmap"  # an array of u32; a size that is no multiple of 4 reads as none
PAIRS = "pairs"  # (mask, value) pairs of machine addresses: u64, or u32 where only that fits

# number: (name, kind)
KINDS = {
    INFO: ("INFO", STRING),
    ENTRY: ("ENTRY", INTEGER),
    HYPERCALL_PAGE: ("HYPERCALL_PAGE", INTEGER),
    VIRT_BASE: ("VIRT_BASE", INTEGER),
    PADDR_OFFSET: ("PADDR_OFFSET", INTEGER),
    XEN_VERSION: ("XEN_VERSION", STRING),
    GUEST_OS: ("GUEST_OS", STRING),
    GUEST_VERSION: ("GUEST_VERSION", STRING),
    LOADER: ("LOADER", STRING),
    PAE_MODE: ("PAE_MODE", STRING),
    FEATURES: ("FEATURES", STRING),
    BSD_SYMTAB: ("BSD_SYMTAB", STRING),
    HV_START_LOW: ("HV_START_LOW", INTEGER),
    L1_MFN_VALID: ("L1_MFN_VALID", PAIRS),
    SUSPEND_CANCEL: ("SUSPEND_CANCEL", INTEGER),
    INIT_P2M: ("INIT_P2M", INTEGER),
    MOD_START_PFN: ("MOD_START_PFN", INTEGER),
    SUPPORTED_FEATURES: ("SUPPORTED_FEATURES", BITMAP),
    PHYS32_ENTRY: ("PHYS32_ENTRY", INTEGER),
    PHYS32_RELOC: ("PHYS32_RELOC", WORDS),
}

# Notes of crash dumps and cores: Xen writes them, its loaders ignore them.
DUMP_NAMES = {
    0x1000001: "CRASH_INFO",
    0x1000002: "CRASH_REGS",
    0x2000000: "DUMPCORE_NONE",
    0x2000001: "DUMPCORE_HEADER",
    0x2000002: "DUMPCORE_XEN_VERSION",
    0x2000003: "DUMPCORE_FORMAT_VERSION",
}

# What the 2015 thread's Draft C shows a PVH kernel to carry (its FreeBSD example); the final text asks for
# PHYS32_ENTRY alone.
DRAFT_C = (GUEST_OS, GUEST_VERSION, XEN_VERSION, PHYS32_ENTRY, FEATURES, SUPPORTED_FEATURES, LOADER)

# Limits of libelf (libelf.h), so that no file keeps a builder busy.
MAX_NOTES = 65536
MAX_STRING = 4096

PHYS32_UNSET = 0xFFFFFFFF

# PHYS32_RELOC's defaults: alignment where neither the note nor a p_align of a page or more gives one; bounds in bytes.
RELOC_ALIGN = 0x200000
RELOC_MIN = 0
RELOC_MAX = 0xFFFFFFFF
