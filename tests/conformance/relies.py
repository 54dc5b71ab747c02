"""Small kernels that rely on one thing each: some bytes that test it, and what they mean.

They go on where the condition holds, to write 0 to the exit port; else they die of an invalid instruction.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from elfwriter import Elf, Load, R, W, X, entry_note, notes

ENTRY = 0x200000
_DIE = "0f0b"  # ud2
_DONE = "b000 e6f4 f4"  # mov $0, %al; out %al, $0xf4; hlt
_EQUAL, _OTHER, _BELOW, _NO_CARRY = "74", "75", "72", "73"


@dataclass(frozen=True)
class Wrong:
    """A kernel that breaks a clause; meaning is its code in words."""

    clause: str
    code: str
    meaning: str
    goes_on: str = _EQUAL
    cmdline: str = ""

    def write(self, folder: Path) -> str:
        """Write the file and return its path."""
        return written(folder, f"{self.clause}.elf", bytes.fromhex(f"{self.code} {self.goes_on}02 {_DIE} {_DONE}"))


def written(folder: Path, name: str, code: bytes) -> str:
    """Write a kernel of code at ENTRY, with 8 KiB of .bss behind."""
    made = Elf((Load(ENTRY, code, memsz=0x2000, flags=R | W | X), notes(entry_note(ENTRY))))
    path = folder / name
    path.write_bytes(made.build())
    return str(path)


_FLAGS = "bc 00182000 9c 58"  # mov $0x201800, %esp; pushf; pop %eax

WRONG = (
    Wrong("entry.eax", "85c0", "EAX is 0"),
    Wrong("entry.ecx", "85c9", "ECX is 0"),
    Wrong("entry.edx", "85d2", "EDX is 0"),
    Wrong("entry.esi", "85f6", "ESI is 0"),
    Wrong("entry.edi", "85ff", "EDI is 0"),
    Wrong("entry.ebp", "85ed", "EBP is 0"),
    Wrong("entry.esp", "85e4", "ESP is 0"),
    Wrong("eflags.status", "", "CF is clear", _NO_CARRY),
    Wrong("eflags.df", f"{_FLAGS} a9 00040000", "DF is clear"),
    Wrong("eflags.system", f"{_FLAGS} a9 00702400", "IOPL, NT, AC, ID are clear"),
    Wrong("segments.selectors", "8cd8 6685c0", "the selector of DS is 0"),
    Wrong("segments.fs-gs", "8ce0 6685c0", "the selector of FS is 0"),
    Wrong("tr", "0f00c8 6685c0", "the selector of TR is 0"),
    Wrong("ldtr", "0f00c0 6685c0", "the selector of LDTR is 0"),
    Wrong("gdt", "0f0105 00102000 833d 02102000 00", "GDTR's base is 0"),
    Wrong("idt", "0f010d 00102000 833d 02102000 00", "IDTR's base is 0"),
    Wrong("cr2", "0f20d0 85c0", "CR2 is 0"),
    Wrong("cr3", "0f20d8 85c0", "CR3 is 0"),
    Wrong("efer", "b9 800000c0 0f32 85c0", "EFER is 0"),
    Wrong("msr", "b9 820000c0 0f32 85c0", "LSTAR is 0"),
    Wrong("dr", "0f21f0 3d f00fffff", "DR6 is as after a reset"),
    Wrong("memory.poison", "833d 00003000 00", "RAM at 0x300000 is 0"),
    Wrong("memory.placement", "8d4338 3b4328", "the memory map is right behind start_info"),
    Wrong("start_info.null", "833d 00000000 00", "RAM at 0 is 0"),
    Wrong("start_info.last-bytes", "837b38 00", "there are bytes behind start_info, and they are 0"),
    Wrong("version.future", "837b04 01", "the version is 1"),
    Wrong("memmap.v0-absent", "817b30 00010000", "bytes behind 40 say less than 256 entries", _BELOW),
    Wrong("memmap.empty", "837b30 00", "there are entries", _OTHER),
    Wrong("memmap.count", "837b30 10", "there are less than 16 entries", _BELOW),
    Wrong("memmap.order", "8b7328 833e00", "the first entry begins at 0"),
    Wrong("rsdp.absent", "837b20 00", "there is an RSDP", _OTHER),
    Wrong("modules.count", "837b0c 00", "there is no module"),
    Wrong("cmdline.absent", "837b18 00", "there is a command line", _OTHER, cmdline="some"),
    Wrong("cmdline.long", "8b7318 80bee803000000 7402 0f0b 39c0", "its 1001st byte is 0", cmdline="some"),
)
