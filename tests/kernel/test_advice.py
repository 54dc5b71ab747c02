"""What a refused file is called, and the lines that would make it bootable."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from elfwriter import PT_INTERP, SHT_NOTE, Elf, Load, R, Section, entry_note, kernel, note, notes, u32, u64
from pvh.abi import elfnote
from pvh.errors import NotBootable
from pvh.kernel.advice import NOTE_LINES
from pvh.kernel.read import read_kernel, read_source
from pvh.kernel.source import BytesSource
from pvh.kernel.verdict import require_bootable

MULTIBOOT, MULTIBOOT2 = u32(0x1BADB002, 0, 0), u32(0xE85250D6, 0, 0)
PROGRAM = Elf((Load(), Load(0, b"/lib/ld.so\0", flags=R, type=PT_INTERP))).build()


def linux(*more: bytes) -> bytes:
    return kernel(note(6, b"linux\0"), note(5, b"xen-3.0\0"), *more)


@pytest.mark.parametrize(
    ("data", "found", "hint"),
    [
        (PROGRAM, "a program to run under an operating system (by /lib/ld.so)", "give a kernel"),
        (Elf(header={"type": 1}).build(), "an object file or a kernel module", "give the linked kernel"),
        (Elf(header={"type": 4}).build(), "a core dump", "give the linked kernel"),
        (Elf(header={"machine": 243}).build(), "a file for RISC-V", "this ABI is for x86 kernels"),
        (linux(), "Xen notes 5, 6, which are a PV kernel's", "build Linux with CONFIG_PVH=y"),
        (kernel(note(6, b"NetBSD\0")), "Xen notes 6, which are a PV kernel's", NOTE_LINES),
        (Elf((Load(data=MULTIBOOT),)).build(), "a Multiboot header and no Xen note", "this image is for GRUB"),
        (Elf((Load(data=MULTIBOOT2),)).build(), "a Multiboot 2 header and no Xen note", "this image is for GRUB"),
        (Elf((Load(data=b"\0" + MULTIBOOT),)).build(), "no ELF notes at all", NOTE_LINES),
        (Elf((Load(data=b"\0" + MULTIBOOT[:4] + b"\0\0\0" + MULTIBOOT),)).build(), "a Multiboot header", "this image"),
        (Elf((Load(data=bytes(8192) + MULTIBOOT),)).build(), "no ELF notes at all", NOTE_LINES),
        (Elf((Load(data=bytes(8192) + MULTIBOOT2),)).build(), "a Multiboot 2 header and no Xen note", "this image"),
        (Elf((Load(data=bytes(32768) + MULTIBOOT2),)).build(), "no ELF notes at all", NOTE_LINES),
        (kernel(note(3, b"12", owner=b"GNU\0"), note(1, b"", owner=b"Go\0")), "notes of GNU, Go", NOTE_LINES),
        (kernel(note(18, u32(0xFFFFFFFF))), "0xffffffff, which means unset", "give the note the entry's"),
        (Elf(sections=(Section("n", b"", SHT_NOTE),)).build(), "no ELF notes at all", NOTE_LINES),
    ],
)
def test_what_it_is_instead(data: bytes, found: str, hint: str) -> None:
    first = read_source(BytesSource("file", data)).problems[0]
    assert first.code == "phys32-entry-missing"
    assert first.found.startswith(found)
    assert first.hint.startswith(hint)


def test_the_lines_make_a_bootable_kernel(tmp_path: Path) -> None:
    """The hint's assembler and linker lines, as they are printed, give a file that this package boots."""
    if not (shutil.which("as") and shutil.which("ld")):
        pytest.skip("needs binutils")
    assembler, script = re.findall(r"(?:assembler|linker script):\n((?: {8}.*\n?)+)", NOTE_LINES)
    program_headers, *sections = script.strip().splitlines()
    (tmp_path / "k.S").write_text(f"{assembler}.text\n.globl entry32\nentry32: hlt\n")
    (tmp_path / "k.ld").write_text(f"{program_headers}\nSECTIONS {{ . = 0x100000;\n" + "\n".join(sections) + "\n}\n")
    # The script's comment is the shell's and the assembler's, not ld's.
    (tmp_path / "k.ld").write_text(re.sub(r"#.*", "", (tmp_path / "k.ld").read_text()))
    subprocess.run(["as", "--32", "-o", "k.o", "k.S"], cwd=tmp_path, check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-n", "-T", "k.ld", "-o", "k.elf", "k.o"], cwd=tmp_path, check=True)
    made = read_kernel(str(tmp_path / "k.elf"))
    assert made.bootable, made.problems
    assert made.start <= (made.entry or 0) < made.end
    assert made.source.read(made.loads[0].offset + (made.entry or 0) - made.start, 1) == b"\xf4"


def test_require_bootable_raises_the_first_cause_in_one_line() -> None:
    with pytest.raises(NotBootable) as caught:
        require_bootable(read_source(BytesSource("vmlinux", Elf().build())))
    assert caught.value.status == 20
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("vmlinux: has no PVH entry point")
    assert str(caught.value).endswith("`pvh inspect` shows the lines")


def test_require_bootable_keeps_offset_and_words() -> None:
    with pytest.raises(NotBootable) as caught:
        require_bootable(read_source(BytesSource("vmlinux", kernel(entry_note(0)))))
    assert caught.value.as_dict() == {
        "code": "not-bootable",
        "cause": "has an entry outside its own image",
        "path": "vmlinux",
        "offset": 0xD0,
        "found": "0x0",
        "wanted": "0x100000 to 0x100020",
        "hint": "give the physical address: the virtual one less the offset between p_vaddr and p_paddr",
    }


def test_a_paddr_offset_that_stands_alone_is_shown() -> None:
    (finding,) = read_source(BytesSource("k", kernel(entry_note(), note(elfnote.PADDR_OFFSET, u64(0x1000))))).problems
    assert (finding.code, finding.found) == ("paddr-offset", "0x1000")


def test_require_bootable_lets_kernels_pass() -> None:
    require_bootable(read_source(BytesSource("vmlinux", kernel(entry_note()))))


def test_an_interpreter_without_a_name() -> None:
    data = Elf((Load(), notes(b""), Load(0, b"", flags=R, type=PT_INTERP))).build()
    assert read_source(BytesSource("ls", data)).problems[0].found.endswith("(by an interpreter)")
