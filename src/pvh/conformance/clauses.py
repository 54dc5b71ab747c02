"""Every clause of the PVH entry and hand-over: what a loader must give, and what a kernel may not rely on.

The sources are paths in the Xen tree. docs/clauses.md is made from this table.
"""

from __future__ import annotations

from pvh.hints import Literal
from pvh.record import dataclass

Party = Literal["kernel", "loader", "both"]
Part = Literal["processor", "memory", "start_info", "platform", "file"]

_PVH = "docs/misc/pvh.pandoc"
_START_INFO = "xen/include/public/arch-x86/hvm/start_info.h"
_ELFNOTE = "xen/include/public/elfnote.h"
_DOMINFO = "xen/common/libelf/libelf-dominfo.c"
_LOADER = "xen/common/libelf/libelf-loader.c"
_TOOLS = "xen/common/libelf/libelf-tools.c"
_BUILDER = "tools/libs/guest/xg_dom_x86.c"
_LAYOUT = "tools/libs/light/libxl_x86.c"


@dataclass(frozen=True, slots=True)
class Clause:
    """One clause of the ABI.

    id      stable; findings and reports name it
    part    what it is about
    binds   kernel: the kernel may not rely on more; loader: whoever enters the kernel must give it; both: it is given,
            exactly so, and a kernel that needs another value must set it
    text    the clause in our words
    source  file of the Xen tree
    """

    id: str
    part: Part
    binds: Party
    text: str
    source: str


def _register(name: str, about: str = "") -> Clause:
    return Clause(f"entry.{name}", "processor", "kernel", f"{name.upper()} has no defined value at entry{about}.", _PVH)


CLAUSES: tuple[Clause, ...] = (
    Clause("entry.eip", "processor", "loader",
           "The first instruction is at the physical address that PHYS32_ENTRY gives.", _PVH),
    Clause("entry.mode", "processor", "both",
           "The kernel is entered in 32-bit protected mode with paging off, whatever its ELF class.", _PVH),
    Clause("entry.ebx", "processor", "loader", "EBX holds the physical address of start_info.", _PVH),
    _register("eax", ": no magic number is handed over in it"),
    _register("ecx"),
    _register("edx"),
    _register("esi"),
    _register("edi"),
    _register("ebp"),
    _register("esp", ": there is no stack until the kernel sets one up"),
    Clause("entry.r8-r15", "processor", "kernel",
           "R8 to R15 have no defined value once 64-bit mode shows them.", _PVH),
    Clause("eflags", "processor", "loader", "EFLAGS has VM, IF and TF clear.", _PVH),
    Clause("eflags.df", "processor", "kernel",
           "EFLAGS.DF has no defined value: CLD comes before the first string instruction.", _PVH),
    Clause("eflags.status", "processor", "kernel", "CF, PF, AF, ZF, SF and OF have no defined value.", _PVH),
    Clause("eflags.system", "processor", "kernel", "IOPL, NT, RF, AC and ID of EFLAGS have no defined value.", _PVH),
    Clause("cr0", "processor", "both",
           "CR0 has PE set and every other writable bit clear: NE, WP, MP and AM are the kernel's to set.", _PVH),
    Clause("cr2", "processor", "kernel", "CR2 has no defined value.", _PVH),
    Clause("cr3", "processor", "kernel", "CR3 has no defined value: it is loaded before paging is enabled.", _PVH),
    Clause("cr4", "processor", "both",
           "CR4 is 0: PAE, PGE, OSFXSR (without which SSE instructions fault) and OSXSAVE are the kernel's to set.",
           _PVH),
    Clause("efer", "processor", "kernel", "EFER has no defined value.", _PVH),
    Clause("segments.flat", "processor", "loader",
           "CS is a 32-bit read/execute segment, DS, ES and SS are 32-bit read/write segments, each of base 0 and limit"
           " 0xffffffff.", _PVH),
    Clause("segments.selectors", "processor", "kernel",
           "The selectors of CS, DS, ES and SS have no defined value; only the hidden parts are given.", _PVH),
    Clause("segments.fs-gs", "processor", "kernel", "FS and GS have no defined value, and may be unusable.", _PVH),
    Clause("tr", "processor", "both",
           "TR holds a busy 32-bit TSS of base 0 and limit 0x67. Nothing is promised of its selector, or of what memory"
           " holds there.", _PVH),
    Clause("ldtr", "processor", "kernel", "LDTR has no defined value, and may be unusable.", _PVH),
    Clause("gdt", "processor", "kernel",
           "GDTR has no defined value: no segment register is loaded before the kernel has set up its own GDT.", _PVH),
    Clause("idt", "processor", "kernel",
           "IDTR has no defined value: no exception or interrupt is taken before the kernel has set up its own IDT.",
           _PVH),
    Clause("dr", "processor", "kernel", "The debug registers have no defined value.", _PVH),
    Clause("fpu", "processor", "kernel",
           "x87, SSE and extended state have no defined value: they are initialised before use.", _PVH),
    Clause("msr", "processor", "kernel",
           "Model specific registers have no defined value beyond their reset state, but for the MTRRs.", _PVH),
    Clause("mtrr", "processor", "loader", "A domU's MTRRs are enabled, with write-back as the default type.", _PVH),
    Clause("memory.loaded", "memory", "loader", "Every loaded segment's file bytes are at its p_paddr.", _LOADER),
    Clause("memory.bss-zero", "memory", "loader", "A segment's memory behind its file bytes is zero.", _LOADER),
    Clause("memory.poison", "memory", "kernel",
           "RAM that nothing was loaded to has no defined contents; it is not zeroed.", _PVH),
    Clause("memory.amount", "memory", "kernel",
           "How much RAM there is, the map says: it may end anywhere, and go on above 4 GiB.", _LAYOUT),
    Clause("memory.placement", "memory", "kernel",
           "The kernel finds modules, command lines and start_info where the addresses say, in any order, not behind"
           " its own image; until it has read them it overwrites no RAM outside that image.", _BUILDER),
    Clause("memory.legacy", "memory", "kernel",
           "There is no BIOS, EBDA, VGA memory or option ROM below 1 MiB: what is there is RAM.", _LAYOUT),
    Clause("start_info.magic", "start_info", "loader", "start_info begins with 0x336ec578.", _START_INFO),
    Clause("start_info.below-4g", "start_info", "loader",
           "start_info and all it points to lie below 4 GiB where they can.", _START_INFO),
    Clause("start_info.last-bytes", "start_info", "kernel",
           "start_info is as long as its version says: 40 bytes in version 0, 56 in version 1, 20 in Draft C. They may"
           " be the last of RAM.", _START_INFO),
    Clause("start_info.null", "start_info", "kernel",
           "An address of 0 means that there is nothing: what RAM holds at 0 is not read for it.", _START_INFO),
    Clause("version.future", "start_info", "kernel",
           "A later version only appends fields: the kernel takes any version from the one it needs on, and what is"
           " appended changes nothing.", _START_INFO),
    Clause("memmap.v0-absent", "start_info", "kernel",
           "Version 0 has no memory map; what stands behind its 40 bytes is not read as one.", _START_INFO),
    Clause("memmap.empty", "start_info", "kernel",
           "memmap_entries may be 0, which means that there is no map: the kernel asks by hypercall.", _START_INFO),
    Clause("memmap.count", "start_info", "kernel", "The map has as many entries as memmap_entries says.", _START_INFO),
    Clause("memmap.order", "start_info", "kernel", "The map's entries need not be sorted.", _BUILDER),
    Clause("memmap.holes", "start_info", "kernel",
           "Between entries may be holes, which hold no memory: RAM is what an entry of type RAM covers.", _START_INFO),
    Clause("memmap.zero-size", "start_info", "kernel", "An entry may have the size 0: it covers nothing.", _START_INFO),
    Clause("memmap.types", "start_info", "kernel",
           "An entry of a type that the kernel does not know is no RAM.", _START_INFO),
    Clause("cmdline.absent", "start_info", "kernel",
           "cmdline_paddr may be 0: there is no command line.", _START_INFO),
    Clause("cmdline.long", "start_info", "kernel",
           "The command line ends at its NUL, and has no greatest length.", _START_INFO),
    Clause("modules.absent", "start_info", "kernel",
           "nr_modules may be 0, and modlist_paddr then is 0 too.", _START_INFO),
    Clause("modules.count", "start_info", "kernel",
           "There are nr_modules modules: what stands behind the list's last entry is no module.", _START_INFO),
    Clause("modules.cmdline-absent", "start_info", "kernel",
           "A module's cmdline_paddr may be 0: it has no command line.", _START_INFO),
    Clause("rsdp.absent", "start_info", "kernel", "rsdp_paddr may be 0: there is no ACPI.", _START_INFO),
    Clause("rsdp.placement", "start_info", "kernel",
           "The RSDP is where rsdp_paddr says, not in the BIOS area.", _START_INFO),
    Clause("apic", "platform", "loader",
           "Each processor has a local APIC, enabled at 0xfee00000 in xAPIC mode.", _PVH),
    Clause("vcpus", "platform", "kernel",
           "There may be any number of processors. The others are down until the kernel starts them.", _PVH),
    Clause("devices", "platform", "kernel",
           "There is no PIC, PIT, RTC, keyboard controller, I/O APIC or PCI host: their ports read as ones.", _PVH),
    Clause("reloc", "platform", "kernel",
           "A kernel with PHYS32_RELOC runs wherever the note allows it to be put.", _ELFNOTE),
    Clause("file.entry-code", "file", "kernel", "What PHYS32_ENTRY points to is 32-bit code.", _PVH),
    Clause("file.entry-executable", "file", "kernel",
           "The entry lies inside a loaded segment that is marked executable.", _LOADER),
    Clause("file.paddr", "file", "kernel",
           "p_paddr holds physical addresses: that is where segments go; p_vaddr counts for nothing.", _LOADER),
    Clause("file.image-fits", "file", "kernel",
           "The image, with its .bss, fits the RAM below 4 GiB of a guest of usual size.", _BUILDER),
    Clause("file.note-segment", "file", "kernel",
           "The notes are in a PT_NOTE segment; only Xen also searches sections.", _TOOLS),
    Clause("file.note-address", "file", "kernel",
           "The note segment is read from the file: it need not be loaded, and its address counts for nothing.",
           _TOOLS),
    Clause("file.note-padding", "file", "kernel",
           "Names and descriptors of notes are padded to 4 bytes, whatever p_align says.", _ELFNOTE),
    Clause("file.note-order", "file", "kernel",
           "Each note stands once; of several of one number the last counts.", _DOMINFO),
    Clause("file.note-value", "file", "kernel",
           "A note's descriptor has the form its number asks for; PHYS32_ENTRY is a physical address below 4 GiB.",
           _ELFNOTE),
    Clause("file.features", "file", "kernel",
           "FEATURES and SUPPORTED_FEATURES name what Xen knows; with ! only what the kernel cannot do without.",
           _DOMINFO),
)  # fmt: skip

BY_ID = {clause.id: clause for clause in CLAUSES}


def of_kernel() -> tuple[Clause, ...]:
    """Return the clauses a kernel can violate."""
    return tuple(clause for clause in CLAUSES if clause.binds != "loader")
