"""Cases of segments, addresses and containers."""

from __future__ import annotations

from elfwriter import (
    SHT_STRTAB,
    SHT_SYMTAB,
    BzImage,
    Elf,
    Load,
    R,
    Section,
    X,
    entry_note,
    kernel,
    note,
    notes,
    pack,
    u32,
)
from kernel.case import DRAFT_C_FEATURES, DRAFT_C_NOTES, Case, linked, text

SYMBOLS = (
    Section(".text", b"\x90"),
    Section(".symtab", bytes(48), SHT_SYMTAB, link=3),
    Section(".strtab", b"\0name\0", SHT_STRTAB),
)
# A size, ELF header and three section headers, symbols, strings; each rounded up to 8 bytes.
SYMBOLS_64 = -(-(4 + 64 + 3 * 64) // 8) * 8 + 48 + 8
SYMBOLS_32 = -(-(4 + 52 + 3 * 40) // 4) * 4 + 48 + 8


def _symbols(
    bits: int, *, data: bytes = bytes(32), sections: tuple[Section, ...] = SYMBOLS, wanted: str = "yes"
) -> bytes:
    return Elf((Load(data=data), notes(entry_note() + text(11, wanted))), sections, bits).build()


LOADING = [
    Case("1-bsd-symtab/64", _symbols(64), warnings=("bsd-symtab",), facts={"end": 0x100020 + SYMBOLS_64}),
    Case("1-bsd-symtab/32", _symbols(32), warnings=("bsd-symtab",), facts={"end": 0x100020 + SYMBOLS_32}),
    Case(
        "1-bsd-symtab/starts-on-a-word",
        _symbols(64, data=bytes(33)),
        warnings=("bsd-symtab",),
        facts={"end": 0x100028 + SYMBOLS_64},
    ),
    Case("1-bsd-symtab/no", _symbols(64, wanted="no"), facts={"end": 0x100020}),
    Case(
        "1-bsd-symtab/no-table",
        _symbols(64, data=bytes(33), sections=SYMBOLS[:1]),
        warnings=("bsd-symtab",),
        facts={"end": 0x100021},
    ),
    Case(
        "1-bsd-symtab/link-beyond-the-table",
        _symbols(64, sections=(Section(".symtab", bytes(48), SHT_SYMTAB, link=3),)),
        warnings=("bsd-symtab",),
        facts={"end": 0x100020},
    ),
    Case(
        "1-bsd-symtab/link-to-no-strings",
        _symbols(64, sections=(SYMBOLS[0], Section(".symtab", bytes(48), SHT_SYMTAB, link=1), *SYMBOLS[2:])),
        warnings=("bsd-symtab",),
        facts={"end": 0x100020 + SYMBOLS_64 - 8},
    ),
    Case(
        "1-bsd-symtab/an-entry-there-is-inside",
        Elf((Load(), notes(entry_note(0x100021) + text(11, "yes"))), SYMBOLS).build(),
        warnings=("bsd-symtab",),
    ),
    Case(
        "1-init-p2m/first-byte",
        linked(Load(), more=note(15, u32(0x100000))),
        ("p2m-inside",),
        facts={"problems.0.found": "0x100000", "problems.0.offset": 0xE4},
    ),
    Case("1-init-p2m/last-byte", linked(Load(), more=note(15, u32(0x10001F))), ("p2m-inside",)),
    Case("1-init-p2m/end", linked(Load(), more=note(15, u32(0x100020)))),
    Case("1-init-p2m/below", linked(Load(), more=note(15, u32(0xFFFFF)))),
    Case("1-reloc/none", kernel(entry_note()), facts={"relocation": None}),
    Case(
        "1-reloc/defaults",
        linked(Load(align=0x200), more=note(19, b"")),
        facts={"relocation.align": 0x200000, "relocation.min": 0, "relocation.last": 0xFFFFFFFF},
    ),
    Case(
        "1-reloc/p-align-of-a-page", linked(Load(align=0x1000), more=note(19, b"")), facts={"relocation.align": 0x1000}
    ),
    Case(
        "1-reloc/p-align-of-what-loads",
        Elf((Load(align=0x4000), notes(entry_note() + note(19, b""), align=0x8000))).build(),
        facts={"relocation.align": 0x4000, "features.supported": 0},
    ),
    Case(
        "1-reloc/is-no-feature",
        linked(Load(), more=note(19, u32(1))),
        facts={"features.supported": 0},
    ),
    Case(
        "1-reloc/p-align",
        linked(Load(align=0x1000), Load(0x101000, align=0x4000), more=note(19, b"")),
        facts={"relocation.align": 0x4000},
    ),
    Case(
        "1-reloc/alignment",
        kernel(entry_note(), note(19, u32(0x10000))),
        facts={"relocation.align": 0x10000, "relocation.min": 0, "relocation.last": 0xFFFFFFFF},
    ),
    Case("1-reloc/lowest", kernel(entry_note(), note(19, u32(0x10000, 5))), facts={"relocation.min": 5}),
    Case("1-reloc/half-a-word", kernel(entry_note(), note(19, u32(0x10000) + b"\1\1")), facts={"relocation.min": 0}),
    Case(
        "1-reloc/all",
        kernel(entry_note(), note(19, u32(0x10000, 5, 0x3FFFFFFF, 9))),
        facts={"relocation.align": 0x10000, "relocation.min": 5, "relocation.last": 0x3FFFFFFF},
    ),
    Case("1-loads/read-only", linked(Load(flags=R))),
    Case("1-loads/write-only", linked(Load(flags=2))),
    Case("1-loads/execute-only", linked(Load(flags=X))),
    Case("1-loads/no-flags", linked(Load(), Load(0x200000, flags=8)), facts={"end": 0x100020}),
    Case("1-loads/no-flags-at-all", linked(Load(flags=0)), ("segment-none",)),
    Case("1-loads/other-type", linked(Load(), Load(0x200000, type=7)), facts={"end": 0x100020}),
    Case("1-paddr", linked(Load(vaddr=0xFFFFFFFF80000000)), facts={"start": 0x100000, "end": 0x100020}),
    Case(
        "1-paddr/span",
        linked(Load(0x200000, memsz=0x500), Load(), Load(0x180000)),
        facts={"start": 0x100000, "end": 0x200500},
    ),
    Case("1-total/twice", linked(*[Load(memsz=0x1000)] * 2)),
    Case(
        "1-total/beyond",
        linked(*[Load(memsz=0x1000)] * 2, Load(memsz=32)),
        ("segment-total",),
        facts={"problems.0.found": "0x2020 bytes in an image of 0x1000"},
    ),
    Case("1-total/a-page-counts-whole", linked(*[Load(memsz=0x801)] * 3)),
    Case("1-classes/32", kernel(entry_note(), bits=32), facts={"bits": 32, "bootable": True}),
    Case("1-classes/64", kernel(entry_note(), bits=64), facts={"bits": 64, "bootable": True}),
    Case(
        "1-classes/32-for-x86-64",
        Elf((Load(), notes(entry_note())), bits=32, header={"machine": 62}).build(),
        facts={"machine": 62},
    ),
    Case(
        "1-classes/other-machine", Elf((Load(), notes(entry_note())), header={"machine": 183}).build(), (), ("machine",)
    ),
    Case(
        "1-classes/other-machine-is-named",
        Elf(header={"machine": 183}).build(),
        ("phys32-entry-missing",),
        ("machine",),
        {"problems.0.found": "a file for AArch64"},
    ),
    Case("1-entry-inside/first", linked(Load(), entry=0x100000)),
    Case("1-entry-inside/end", linked(Load(), entry=0x100020), warnings=("entry-at-end",)),
    Case(
        "1-entry-inside/behind",
        linked(Load(), entry=0x100021),
        ("entry-outside",),
        facts={"problems.0.wanted": "0x100000 to 0x100020", "problems.0.offset": 0xD0},
    ),
    Case("1-entry-inside/before", linked(Load(), entry=0xFFFFF), ("entry-outside",)),
    Case("1-entry-inside/gap-is-inside", linked(Load(), Load(0x200000), entry=0x180000)),
    Case(
        "1-kstart-kend/nothing-loads", kernel(entry_note(), loads=()), ("segment-none",), facts={"start": 0, "end": 0}
    ),
    Case("1-kstart-kend/wraps", linked(Load(), Load(0xFFFFFFFFFFFFF000, memsz=0x1000)), ("segment-wraps",)),
    Case("1-kstart-kend/just-below", linked(Load(), Load(0xFFFFFFFFFFFFF000, memsz=0xFFF))),
    Case(
        "1-start-aligned/no",
        linked(Load(0x100010), entry=0x100010),
        ("start-unaligned",),
        facts={"problems.0.found": "0x100010"},
    ),
    Case("1-start-aligned/second-segment-need-not", linked(Load(), Load(0x100123))),
    Case("1-image-size", linked(Load(memsz=0x1001)), facts={"min_memory": 0x102000}),
    Case("1-image-size/whole-pages", linked(Load(memsz=0x1000)), facts={"min_memory": 0x101000}),
    Case(
        "1-broken/filesz-above-memsz",
        linked(Load(memsz=31)),
        ("segment-filesz",),
        facts={"problems.0.found": "0x20", "problems.0.wanted": "at most p_memsz, 0x1f"},
    ),
    Case(
        "1-broken/bytes-beyond-file",
        Elf((notes(entry_note()), Load(filesz=33, memsz=64))).build(),
        ("segment-beyond-file",),
    ),
    Case("1-broken/bytes-up-to-the-end", Elf((notes(entry_note()), Load(filesz=32))).build()),
    Case("1-broken/only-what-loads", Elf((Load(), notes(entry_note()), Load(flags=0, filesz=999, memsz=1))).build()),
    Case(
        "1-broken/entry-cut-by-the-end",
        Elf((Load(), notes(entry_note(0x101234)))).build()[:-2],
        ("entry-outside",),
        ("note-cut",),
        {"entry": 0},
    ),
    *(
        Case(
            f"1-draft-c/elf{bits}",
            kernel(*DRAFT_C_NOTES, bits=bits),
            facts={
                "bootable": True,
                "entry": 0x100000,
                "features.supported": DRAFT_C_FEATURES,
                "features.required": 0,
                "value_6": "FreeBSD",
                "value_5": "xen-3.0",
                "value_8": "generic",
            },
        )
        for bits in (32, 64)
    ),
]

PLAIN = kernel(entry_note())
GZIP = pack("gzip", PLAIN)
EVEN = GZIP + bytes(-len(GZIP) % 16)


def unsigned(at: int, data: bytes) -> bytes:
    """Return a bzImage with a signature beyond its end, and a header damaged so that nothing names the signature."""
    image = bytearray(BzImage(GZIP, signature=(1 << 24, 1)).build())
    image[at : at + len(data)] = data
    image[0xA8:0xB0] = b"\xff" * 8  # where the field would be, if a PE header started at 0
    return bytes(image)


CONTAINERS = [
    Case("5-plain-elf", PLAIN, facts={"formats": ("ELF64",), "linux_version": ""}),
    Case("5-gzip-file", pack("gzip", PLAIN), facts={"formats": ("gzip", "ELF64")}),
    Case("5-gzip-file/elf32", pack("gzip", kernel(entry_note(), bits=32)), facts={"formats": ("gzip", "ELF32")}),
    Case(
        "5-gzip-file/bzimage",
        pack("gzip", BzImage(pack("xz", PLAIN)).build()),
        facts={"formats": ("gzip", "bzImage", "xz", "ELF64")},
    ),
    *(
        Case(
            f"5-{codec}",
            BzImage(pack(codec, PLAIN)).build(),
            facts={
                "formats": ("bzImage", codec, "ELF64"),
                "entry": 0x100000,
                "linux_version": "6.1.0-test",
                "layers.1.offset": 4 * 512 + 0x80,
            },
        )
        for codec in ("gzip", "bzip2", "xz", "lzma", "lz4", "zstd")
    ),
    Case(
        "5-elf/32",
        BzImage(pack("gzip", kernel(entry_note(), bits=32))).build(),
        facts={"formats": ("bzImage", "gzip", "ELF32")},
    ),
    Case(
        "5-version/2.08",
        BzImage(pack("gzip", PLAIN), protocol=0x208).build(),
        facts={"layers.0.detail": "boot protocol 2.08, Linux 6.1.0-test"},
    ),
    Case(
        "5-version/no-text",
        BzImage(pack("gzip", PLAIN), version="").build(),
        facts={"linux_version": "", "layers.0.detail": "boot protocol 2.15"},
    ),
    Case(
        "5-bounds/syssize",
        BzImage(pack("gzip", PLAIN), payload_offset=0, syssize=len(pack("gzip", PLAIN)) // 16).build(),
    ),
    Case(
        "5-bounds/syssize-to-the-last-byte",
        BzImage(EVEN, payload_offset=0, payload_length=len(GZIP), syssize=len(EVEN) // 16).build(),
    ),
    *(
        Case(f"5-bounds/no-signature-without-{what}", unsigned(at, data))
        for what, at, data in (("mz", 0, b"\0\0"), ("pe", 0x40, b"NE"), ("pe32-plus", 0x58, b"\x0b\x01"))
    ),
    Case("5-version/not-ascii", BzImage(GZIP, version="6.1\xe9 x").build(), facts={"linux_version": ""}),
    Case(
        "5-bounds/signature",
        BzImage(pack("gzip", PLAIN), signature=(2048 + 0x80, len(pack("gzip", PLAIN)))).build(),
    ),
    Case(
        "5-payload/setup-sects-0",
        BzImage(pack("gzip", PLAIN), setup_sects=0, payload_offset=0x200).build(),
        facts={"layers.1.offset": 0x400},
    ),
    Case("5-payload/offset-0", BzImage(pack("gzip", PLAIN), payload_offset=0).build(), facts={"layers.1.offset": 2048}),
    Case("5-bounds/to-the-end", BzImage(pack("xz", PLAIN)).build(), facts={"bootable": True}),
    Case(
        "5-bounds/more-behind", BzImage(pack("xz", PLAIN), payload_length=len(pack("xz", PLAIN))).build() + b"signature"
    ),
]


CASES = [*LOADING, *CONTAINERS]
