"""Origins: what the ABI leaves unspecified at entry, each with the clause that says so.

A value of the shadow names its origin by number. From NULL_MODLIST on, an origin marks a defined value: a pointer of
start_info that is 0 because the thing is absent, which may be tested, but not followed.
"""

from __future__ import annotations

from pvh.record import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """Something without a defined value: the clause that says so, and its name in a sentence."""

    clause: str
    name: str


_LOW = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
UPPER = "entry.r8-r15"

# Of EBX only the upper half of RBX is undefined.
_GPRS = tuple(Origin(UPPER if name == "ebx" else f"entry.{name}", name.upper()) for name in _LOW)
_HIGH = tuple(Origin(UPPER, f"R{index}") for index in range(8, 16))

ORIGINS = (
    Origin("", ""),  # 0: defined
    *_GPRS,
    *_HIGH,
    Origin("eflags.status", "a status flag of EFLAGS"),
    Origin("eflags.df", "EFLAGS.DF"),
    Origin("eflags.system", "a system flag of EFLAGS"),
    Origin("cr2", "CR2"),
    Origin("cr3", "CR3"),
    Origin("efer", "EFER"),
    Origin("msr", "a model specific register"),
    Origin("dr", "a debug register"),
    Origin("fpu", "x87 or SSE state"),
    Origin("segments.selectors", "a segment selector"),
    Origin("segments.fs-gs", "FS or GS"),
    Origin("tr", "TR"),
    Origin("ldtr", "LDTR"),
    Origin("gdt", "GDTR"),
    Origin("idt", "IDTR"),
    Origin("memory.poison", "RAM that nothing was loaded to"),
    Origin("start_info.null", "RAM at address 0"),
    Origin("memory.legacy", "memory where a PC has BIOS data, which is RAM here"),
    Origin("rsdp.placement", "memory where a PC has its BIOS, which is RAM here"),
    Origin("start_info.last-bytes", "what stands behind start_info"),
    Origin("memmap.v0-absent", "what stands behind the 40 bytes of a start_info of version 0"),
    Origin("version.future", "what a later version appended to start_info"),
    Origin("modules.count", "what stands behind the last entry of the module list"),
    Origin("memmap.count", "what stands behind the last entry of the memory map"),
    Origin("memmap.empty", "memory where there is no memory map, as memmap_entries is 0"),
    Origin("cmdline.long", "what stands behind the command line's NUL"),
    Origin("modules.absent", "modlist_paddr, which is 0 as there is no module"),
    Origin("cmdline.absent", "cmdline_paddr, which is 0 as there is no command line"),
    Origin("modules.cmdline-absent", "a module's cmdline_paddr, which is 0 as it has no command line"),
    Origin("rsdp.absent", "rsdp_paddr, which is 0 as there is no ACPI"),
    Origin("memmap.empty", "memmap_paddr, which is 0 as there is no memory map"),
)

GPR = 1  # of EAX; the others follow in encoding order
(FLAGS, FLAG_DF, SYSTEM_FLAG, CR2, CR3, EFER, MSR, DR, FPU, SELECTOR, FS_GS, TR, LDTR, GDT, IDT, RAM, ZERO_PAGE,
 LEGACY, BIOS, BEHIND_START_INFO, BEHIND_V0, FUTURE, BEHIND_MODLIST, BEHIND_MEMMAP, EMPTY_MEMMAP, BEHIND_CMDLINE,
 NULL_MODLIST, NULL_CMDLINE, NULL_MODULE_CMDLINE, NULL_RSDP, NULL_MEMMAP) = range(GPR + 16, len(ORIGINS))  # fmt: skip

STATUS_FLAGS = 0x8D5  # CF PF AF ZF SF OF
DF = 1 << 10
IOPL, NT, AC, ID = 3 << 12, 1 << 14, 1 << 18, 1 << 21
SYSTEM_FLAGS = IOPL | NT | AC | ID  # RF too, but PUSHF stores it clear


def narrowed(origin: int, mask: int) -> int:
    """Return the origin of undefined bits of EFLAGS, where these are of several clauses."""
    if origin != FLAGS or mask & STATUS_FLAGS:
        return origin
    return FLAG_DF if mask & DF else SYSTEM_FLAG


def named(origin: int, mask: int) -> Origin:
    """Return an origin as a sentence names it, by the bits that were used where these are of several clauses."""
    if GPR <= origin < GPR + 8 and not mask & 0xFFFFFFFF:
        return Origin(UPPER, f"the upper half of R{_LOW[origin - GPR][1:].upper()}")
    return ORIGINS[narrowed(origin, mask)]
