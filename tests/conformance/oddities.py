"""Odd files, one or more for every clause of the file: what a lint says of each, the clause and the grade."""

from __future__ import annotations

from elfwriter import SHT_NOTE, Elf, Load, R, Section, W, X, entry_note, note, notes, u32, u64

ENTRY = 0x100000
CODE = bytes.fromhex("fa fc bc 00201000 f4")  # cli; cld; mov $0x102000, %esp; hlt
WIDE = bytes.fromhex("48 89 e5 48 31 c0 f4")  # mov %rsp, %rbp; xor %rax, %rax; hlt
PHYS32_ENTRY = entry_note(ENTRY)
IN_A_SECTION = Elf((Load(ENTRY, CODE),), (Section(".note.Xen", PHYS32_ENTRY, SHT_NOTE),))


def image(*records: bytes, code: bytes = CODE, **fields: int) -> Elf:
    load = Load(**{"paddr": ENTRY, "flags": R | W | X, **fields}, data=code)
    return Elf((load, notes(b"".join(records or (PHYS32_ENTRY,)))))


ODD: tuple[tuple[Elf, tuple[str, str]], ...] = (
    (image(code=WIDE), ("file.entry-code", "violation")),
    (image(code=b"\xf3\x0f\x1e\xfa\xf4"), ("file.entry-code", "violation")),
    (image(code=bytes(16)), ("file.entry-code", "violation")),
    (image(code=b"\xff\xff\xff\xff"), ("file.entry-code", "violation")),
    (image(flags=R | W), ("file.entry-executable", "note")),
    (image(memsz=len(CODE), code=CODE, paddr=ENTRY - 0x1000), ("file.entry-executable", "violation")),
    (image(entry_note(0xC0100000), paddr=0xC0100000), ("file.paddr", "violation")),
    (image(memsz=1 << 30), ("file.image-fits", "violation")),
    (image(PHYS32_ENTRY, entry_note(ENTRY + 2)), ("file.note-order", "violation")),
    (image(PHYS32_ENTRY, PHYS32_ENTRY), ("file.note-order", "note")),
    (image(note(18, u64(0xFFFFFFFF00000000 | ENTRY))), ("file.note-value", "violation")),
    (image(PHYS32_ENTRY, note(0x77, b"x")), ("file.note-value", "note")),
    (image(PHYS32_ENTRY, note(16, b"\1\2\3")), ("file.note-value", "violation")),
    (image(PHYS32_ENTRY, note(10, b"no_such_thing\0")), ("file.features", "note")),
    (image(PHYS32_ENTRY, note(10, b"!no_such_thing\0")), ("file.features", "violation")),
    (image(PHYS32_ENTRY, note(10, b"!writable_page_tables\0")), ("file.features", "note")),
    (image(PHYS32_ENTRY, note(10, b"!dom0\0")), ("file.features", "violation")),
    (image(PHYS32_ENTRY, note(6, u32(4)) + b"\4\0\0\0\xff\0\0\0"), ("file.note-padding", "violation")),
    (Elf((Load(ENTRY, CODE), notes(PHYS32_ENTRY, align=8))), ("file.note-padding", "note")),
    (Elf((Load(ENTRY, CODE), notes(PHYS32_ENTRY, paddr=0xFFFFFFFF80100000))), ("file.note-address", "note")),
    (
        Elf((Load(ENTRY, CODE),), (Section(".note.Xen", PHYS32_ENTRY, SHT_NOTE),)),
        ("file.note-segment", "violation"),
    ),
)
