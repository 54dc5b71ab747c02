"""What to tell somebody whose kernel has no PVH entry: what the file is, and what to add."""

from __future__ import annotations

from pvh.abi import elfnote
from pvh.kernel import elf
from pvh.kernel.record import Kernel

# The lines are assembled, linked and booted by tests/kernel/test_advice.py.
NOTE_LINES = """\
add the note where the kernel has its 32-bit entry, and a segment for it:
    assembler:
        .section .note.Xen, "a", @note
        .balign 4
        .long 4, 4, 18               # namesz, descsz, XEN_ELFNOTE_PHYS32_ENTRY
        .asciz "Xen"
        .long entry32                # physical address of the 32-bit entry
    linker script:
        PHDRS { load PT_LOAD FLAGS(7); note PT_NOTE FLAGS(4); }
        .note.Xen : { KEEP(*(.note.Xen)) } :load :note
        .text : { *(.text*) } :load  # and :load for all that follows"""

_MACHINES = {
    2: "SPARC",
    8: "MIPS",
    20: "PowerPC",
    21: "PowerPC64",
    22: "S/390",
    elf.EM_ARM: "ARM",
    183: "AArch64",
    243: "RISC-V",
    258: "LoongArch",
}
_TYPES = {1: "an object file or a kernel module", 4: "a core dump"}
_MULTIBOOT = {b"\x02\xb0\xad\x1b": "Multiboot", b"\xd6\x50\x52\xe8": "Multiboot 2"}


def has_xen_notes(kernel: Kernel) -> bool:
    """Tell whether any note is Xen's."""
    return any(note.owner == elfnote.OWNER for note in kernel.notes)


def text(kernel: Kernel, number: int) -> str:
    """Return the value of a Xen note that is a string, "" without it."""
    note = kernel.note(number)
    return note.value if note and isinstance(note.value, str) else ""


def no_entry(kernel: Kernel) -> tuple[str, str]:
    """Return what was found in place of PHYS32_ENTRY, and what to do about it."""
    if kernel.note(elfnote.PHYS32_ENTRY):
        return "0xffffffff, which means unset", "give the note the entry's physical address"
    return _no_kernel(kernel) or _other_kernel(kernel)


def _no_kernel(kernel: Kernel) -> tuple[str, str] | None:
    """Name an ELF file that no note would make a PVH kernel."""
    if kernel.machine in _MACHINES:
        return f"a file for {_MACHINES[kernel.machine]}", "this ABI is for x86 kernels"
    if kernel.type in _TYPES:
        return _TYPES[kernel.type], "give the linked kernel (vmlinux)"
    interpreter = _interpreter(kernel)
    if interpreter:
        return f"a program to run under an operating system (by {interpreter})", "give a kernel"
    return None


def _other_kernel(kernel: Kernel) -> tuple[str, str]:
    """Say what a kernel has instead of the note."""
    if has_xen_notes(kernel):
        return _pv_kernel(kernel)
    found = _multiboot(kernel)
    if found:
        return f"a {found} header and no Xen note", "this image is for GRUB; " + NOTE_LINES
    owners = sorted({note.owner for note in kernel.notes})
    if owners:
        return "notes of " + ", ".join(owners), NOTE_LINES
    return _no_notes(kernel)


def _interpreter(kernel: Kernel) -> str:
    for segment in kernel.segments:
        if segment.type == elf.PT_INTERP:
            path = kernel.source.read(segment.offset, min(segment.filesz, 256)).split(b"\0")[0]
            return path.decode("latin-1") or "an interpreter"
    return ""


def _pv_kernel(kernel: Kernel) -> tuple[str, str]:
    numbers = sorted({note.type for note in kernel.notes if note.owner == elfnote.OWNER})
    found = "Xen notes " + ", ".join(str(number) for number in numbers) + ", which are a PV kernel's"
    if text(kernel, elfnote.GUEST_OS) == "linux":
        return found, "build Linux with CONFIG_PVH=y"
    return found, NOTE_LINES


def _multiboot(kernel: Kernel) -> str:
    """Look where the Multiboot specifications put their headers: 8 KiB for the first, 32 KiB for the second."""
    head = kernel.source.read(0, 32768)
    for magic, name in _MULTIBOOT.items():
        at = head.find(magic)
        while at >= 0:
            if at % 4 == 0 and (name == "Multiboot 2" or at < 8192):
                return name
            at = head.find(magic, at + 1)
    return ""


def _no_notes(kernel: Kernel) -> tuple[str, str]:
    header = elf.read_header(kernel.source)
    sections = elf.read_sections(kernel.source, header)
    names = (elf.section_name(kernel.source, header, sections, section) for section in sections)
    if "__xen_guest" in names:
        return "a section __xen_guest, which is for PV guests only", NOTE_LINES
    return "no ELF notes at all", NOTE_LINES
