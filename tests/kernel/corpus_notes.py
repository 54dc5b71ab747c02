"""Cases of notes: which are found, how they are read, what they mean."""

from __future__ import annotations

from elfwriter import (
    SHT_NOTE,
    XEN,
    Elf,
    Load,
    R,
    Section,
    entry_note,
    kernel,
    note,
    notes,
    u32,
    u64,
)
from kernel.case import Case, featured, linked, text

KINDS = [
    # number, descriptor, value
    (0, b"NAME=VALUE\0", "NAME=VALUE"),
    (1, u64(0xFFFFFFFF80000000), 0xFFFFFFFF80000000),
    (2, u64(0x1000), 0x1000),
    (3, u64(0), 0),
    (4, u64(7), 7),
    (5, b"xen-3.0\0", "xen-3.0"),
    (6, b"linux\0", "linux"),
    (7, b"2.6\0", "2.6"),
    (8, b"generic\0", "generic"),
    (9, b"yes\0", "yes"),
    (10, b"dom0\0", "dom0"),
    (11, b"no\0", "no"),
    (12, u32(0xF5800000), 0xF5800000),
    (13, u64(1, 1), (1, 1)),
    (14, u32(1), 1),
    (15, u64(1 << 39), 1 << 39),
    (16, u32(1), 1),
    (17, u32(5), (5,)),
    (18, u32(0x100000), 0x100000),
    (19, u32(0x200000, 0x1000000, 0x3FFFFFFF), (0x200000, 0x1000000, 0x3FFFFFFF)),
]


def _kinds() -> list[Case]:
    return [
        Case(
            f"1-kinds/note-{number}",
            kernel(entry_note(), note(number, desc)),
            ("paddr-offset",) if number == 4 else (),
            ("note-repeated",) if number == 18 else (),
            facts={f"value_{number}": value},
        )
        for number, desc, value in KINDS
    ]


UNSET = (1 << 64) - 1

NOTES = [
    Case("1-only-required/note-18-alone", kernel(entry_note()), facts={"entry": 0x100000, "bootable": True}),
    Case("1-only-required/without", kernel(text(6, "linux"), text(5, "xen-3.0")), ("phys32-entry-missing",)),
    Case(
        "1-only-required/unset",
        kernel(entry_note(0xFFFFFFFF), text(8, "generic"), text(5, "xen-3.0")),
        ("phys32-entry-missing",),
        facts={"entry": None, "problems.0.offset": 0xD0, "problems.0.found": "0xffffffff, which means unset"},
    ),
    Case("1-entry-zero", linked(Load(paddr=0), entry=0), facts={"entry": 0, "start": 0, "bootable": True}),
    Case(
        "1-entry-32-bits",
        kernel(note(18, u64(0xFFFFFFFF_00100000))),
        warnings=("entry-truncated",),
        facts={"entry": 0x100000},
    ),
    Case("1-entry-32-bits/8-bytes", kernel(note(18, u64(0x100000))), facts={"entry": 0x100000}),
    Case(
        "1-entry-32-bits/unset-in-64",
        kernel(note(18, u64(0xFFFFFFFF_FFFFFFFF)), text(8, "generic"), text(5, "xen-3.0")),
        ("phys32-entry-missing",),
        ("entry-truncated",),
    ),
    Case(
        "1-last-counts",
        kernel(entry_note(0x200000), entry_note()),
        warnings=("note-repeated",),
        facts={"entry": 0x100000},
    ),
    Case(
        "1-last-counts/features-add-up",
        kernel(entry_note(), text(10, "dom0"), text(10, "!pae_pgdir_above_4gb"), note(17, u32(1)), note(17, u32(2))),
        facts={"features.supported": 1 << 11 | 1 << 4 | 3, "features.required": 1 << 4},
    ),
    Case("1-unknown-number/20", kernel(entry_note(), note(20, u32(1))), warnings=("note-unknown",)),
    Case(
        "1-unknown-number/far",
        kernel(entry_note(), note(0x7FFFFFFF, b"")),
        warnings=("note-unknown",),
        facts={"notes.1.value": None, "warnings.0.offset": 0xE4},
    ),
    Case("1-dump-notes", kernel(entry_note(), note(0x2000001, u32(1))), facts={"notes.1.name": "DUMPCORE_HEADER"}),
    Case(
        "1-padding/name",
        kernel(note(1, u32(5), owner=b"Other\0"), entry_note()),
        facts={"notes.0.owner": "Other", "notes.1.offset": 0xD0 + 12 + 8 + 4, "entry": 0x100000},
    ),
    Case("1-padding/descriptor", kernel(text(6, "linux"), entry_note()), facts={"value_6": "linux", "entry": 0x100000}),
    Case(
        "1-padding/p-align-8-is-not-honoured",
        Elf((Load(), notes(note(6, b"linux\0") + entry_note(), align=8))).build(),
        facts={"entry": 0x100000},
    ),
    Case(
        "1-padding/padded-to-8-is-misread",
        Elf((Load(), notes(note(6, b"x\0", pad=8) + entry_note(), align=8))).build(),
        ("phys32-entry-missing", "loader", "xen-version"),
    ),
    Case("1-owner/other", kernel(note(18, u32(0x100000), owner=b"XEN\0")), ("phys32-entry-missing",)),
    Case("1-owner/longer", kernel(note(18, u32(0x100000), owner=b"Xen2\0")), ("phys32-entry-missing",)),
    Case("1-owner/no-terminator-counted", kernel(note(18, u32(0x100000), owner=b"Xen")), facts={"entry": 0x100000}),
    Case("1-owner/nul-ends-it", kernel(note(18, u32(0x100000), owner=b"Xen\0more\0\0\0")), facts={"entry": 0x100000}),
    Case(
        "1-segments-first/all-of-them",
        Elf((notes(text(6, "linux")), Load(), notes(entry_note()))).build(),
        facts={"value_6": "linux", "entry": 0x100000, "notes.1.where": "segment 2"},
    ),
    Case(
        "1-segments-first/offset-0-is-passed-over",
        Elf((Load(), notes(entry_note(), offset=0))).build(),
        ("phys32-entry-missing",),
        facts={"notes": ()},
    ),
    Case(
        "1-segments-first/other-types-are-no-notes",
        Elf((Load(), Load(0, entry_note(), flags=R, type=5))).build(),
        ("phys32-entry-missing",),
    ),
    Case(
        "1-segments-first/sections-are-not-looked-at",
        Elf((Load(), notes(entry_note())), (Section(".note.Xen", entry_note(0x100004), SHT_NOTE),)).build(),
        facts={"entry": 0x100000, "notes.0.where": "segment 1"},
    ),
    Case(
        "1-sections-second",
        Elf(sections=(Section(".note.Xen", entry_note(), SHT_NOTE),)).build(),
        warnings=("notes-in-sections",),
        facts={"entry": 0x100000, "notes.0.where": "section .note.Xen"},
    ),
    Case(
        "1-sections-second/beside-segments-of-others",
        Elf(
            (Load(), notes(note(3, b"\x12\x34", owner=b"GNU\0"))),
            (Section(".text", b"", 1), Section("n", entry_note(), SHT_NOTE), Section("m", text(6, "linux"), SHT_NOTE)),
            bits=32,
        ).build(),
        warnings=("notes-in-sections",),
        facts={"entry": 0x100000, "value_6": "linux", "build_id": "1234", "notes.1.where": "section n"},
    ),
    Case(
        "1-sections-second/same-bytes-as-a-segment-once",
        Elf(
            (Load(), notes(b"", offset=0xD0, filesz=20)),
            (Section("id", note(3, b"\x12\x34", owner=b"GNU\0"), SHT_NOTE), Section("n", entry_note(), SHT_NOTE)),
        ).build(),
        warnings=("notes-in-sections",),
        facts={"entry": 0x100000, "notes.0.where": "segment 1", "notes.1.where": "section n"},
    ),
    Case(
        "1-sections-second/index-0-is-not-read",
        Elf(
            (Load(), Load(0, entry_note(), flags=0, type=0)),
            header={
                "shoff": 64,
                "shnum": 1,
                "shentsize": 64,
                "shstrndx": 0,
            },
        ).build(),
        ("phys32-entry-missing",),
    ),
    Case(
        "1-sections-second/other-types-are-no-notes",
        Elf(sections=(Section(".note.Xen", entry_note(), 1),)).build(),
        ("phys32-entry-missing",),
    ),
    Case(
        "1-xen-guest-pv",
        Elf(sections=(Section("__xen_guest", b"LOADER=generic,XEN_VER=xen-3.0\0"),)).build(),
        ("phys32-entry-missing",),
        facts={"problems.0.found": "a section __xen_guest, which is for PV guests only"},
    ),
    Case(
        "1-note-limit/65536-are-read",
        kernel(note(0x5000, b"", owner=b"") * 65535, entry_note()),
        facts={"entry": 0x100000},
    ),
    Case(
        "1-note-limit/65537-are-not",
        kernel(note(0x5000, b"", owner=b"") * 65536, entry_note()),
        ("phys32-entry-missing",),
        ("note-count",),
    ),
    Case("1-string-limit/4096", kernel(entry_note(), text(6, "l" * 4096)), facts={"value_6": "l" * 4096}),
    Case(
        "1-string-limit/4097",
        kernel(text(6, "l" * 4097), entry_note()),
        warnings=("note-string",),
        facts={"value_6": None, "entry": 0x100000},
    ),
    Case(
        "1-string-limit/the-file-ends-first",
        kernel(entry_note(), note(6, b"linu")),
        warnings=("note-string",),
        facts={"value_6": None},
    ),
    Case(
        "1-string-limit/a-name-that-does-not-end",
        Elf((Load(), notes(note(18, b"", owner=b"Xenx")))).build(),
        ("phys32-entry-missing",),
        facts={"notes": ()},
    ),
    Case(
        "1-string-limit/runs-on-without-a-nul",
        kernel(entry_note(), note(6, b"linu") + note(7, b"\x78\0\0\0")),
        warnings=("string-unterminated",),
        facts={"value_6": "linu\x04"},
    ),
    Case(
        "1-string-limit/padding-ends-it",
        kernel(entry_note(), note(6, b"linux")),
        facts={"value_6": "linux"},
    ),
    *(
        Case(
            f"1-integer-sizes/{size}", kernel(entry_note(), note(16, b"\xff" * size)), facts={"value_16": 256**size - 1}
        )
        for size in (1, 2, 4, 8)
    ),
    *(
        Case(
            f"1-integer-sizes/{size}",
            kernel(entry_note(), note(16, b"\xff" * size)),
            warnings=("note-size",),
            facts={"value_16": 0},
        )
        for size in (0, 3, 5, 7, 9, 16)
    ),
    Case(
        "1-integer-sizes/entry-of-3-bytes-is-0",
        kernel(note(18, b"\0\0\x10")),
        ("entry-outside",),
        ("note-size",),
        facts={"entry": 0, "problems.0.found": "0x0"},
    ),
    Case("1-guest-os", kernel(entry_note(), text(6, "FreeBSD")), facts={"value_6": "FreeBSD"}),
    Case("1-loader/any-with-entry", kernel(entry_note(), text(8, "other"))),
    Case(
        "1-loader/other",
        kernel(text(8, "other"), text(5, "xen-3.0")),
        ("phys32-entry-missing", "loader"),
        facts={"problems.1.found": "LOADER `other`, GUEST_OS ``"},
    ),
    Case("1-loader/generic-and-more", kernel(text(8, "generic2"), text(5, "xen-3.0")), ("phys32-entry-missing",)),
    Case("1-loader/linux-needs-none", kernel(text(6, "linux-6"), text(5, "xen-3.0")), ("phys32-entry-missing",)),
    Case("1-xen-version/any-with-entry", kernel(entry_note(), text(5, "xen-2.0"))),
    Case("1-xen-version/2", kernel(text(8, "generic"), text(5, "xen-2.0")), ("phys32-entry-missing", "xen-version")),
    Case("1-xen-version/3.0-x", kernel(text(8, "generic"), text(5, "xen-3.0-x86")), ("phys32-entry-missing",)),
    Case(
        "1-pv-notes-ignored",
        kernel(
            entry_note(),
            *(note(number, u64(0xDEAD_BEEF_0000_0001)) for number in (1, 2, 3, 4, 12, 14)),
            text(9, "bimodal"),
            note(13, u64(1, 1)),
        ),
        facts={"entry": 0x100000, "start": 0x100000},
    ),
    Case("1-paddr-offset/alone", kernel(entry_note(), note(4, u64(0))), ("paddr-offset",)),
    Case(
        "1-paddr-offset/base-unset",
        kernel(entry_note(), *(note(n, u64(v)) for n, v in ((4, 0), (3, UNSET)))),
        ("paddr-offset",),
    ),
    Case("1-paddr-offset/with-base", kernel(entry_note(), note(4, u64(0)), note(3, u64(0)))),
    Case("1-paddr-offset/unset", kernel(entry_note(), note(4, u64(UNSET)))),
    Case("1-paddr-offset/32-bits-are-not-unset", kernel(entry_note(), note(4, u32(0xFFFFFFFF))), ("paddr-offset",)),
    Case("1-mod-start-pfn", kernel(entry_note(), note(16, u32(1))), facts={"value_16": 1}),
    Case(
        "1-no-notes",
        Elf().build(),
        ("phys32-entry-missing",),
        facts={"problems.0.found": "no ELF notes at all", "problems.0.field": "PHYS32_ENTRY"},
    ),
    Case(
        "1-broken/notes-beyond-file",
        Elf((Load(), notes(entry_note()[:-9], filesz=400))).build(),
        ("phys32-entry-missing",),
        ("note-cut",),
    ),
    Case(
        "1-broken/descriptor-of-4-gib",
        kernel(entry_note(), note(6, b"linux\0")[:4] + u32(0xFFFFFFF0, 6) + XEN + b"linux\0"),
        warnings=("note-cut",),
        facts={"value_6": "linux"},
    ),
]


FEATURES = [
    Case(
        "1-features-tokens",
        featured("writable_page_tables|!auto_translated_physmap"),
        facts={"features.supported": 5, "features.required": 4},
    ),
    Case(
        "1-features-tokens/other-notes-say-nothing",
        kernel(entry_note(), text(6, "dom0"), note(10, b"dom0\0", owner=b"GNU\0")),
        facts={"features.supported": 0},
    ),
    Case("1-features-tokens/empty", featured("||dom0|"), facts={"features.supported": 1 << 11}),
    Case("1-features-tokens/no-spaces", featured("dom0| dom0"), warnings=("feature-ignored",)),
    *(
        Case(
            f"1-features-names/{name}",
            featured(f"!{name}"),
            ("dom0-required",) if bit == 11 else (),
            facts={"features.supported": 1 << bit, "features.required": 1 << bit},
        )
        for bit, name in (
            (0, "writable_page_tables"),
            (1, "writable_descriptor_tables"),
            (2, "auto_translated_physmap"),
            (3, "supervisor_mode_kernel"),
            (4, "pae_pgdir_above_4gb"),
            (8, "hvm_callback_vector"),
            (11, "dom0"),
        )
    ),
    Case(
        "1-features-names/a-number-is-not-enough",
        featured("linux_rsdp_unrestricted"),
        warnings=("feature-ignored",),
        facts={"features.supported": 0, "warnings.0.found": "linux_rsdp_unrestricted", "warnings.0.hint": ""},
    ),
    Case(
        "1-features-unknown/required",
        featured("!hvm_pirqs"),
        ("feature-unknown",),
        facts={"problems.0.found": "!hvm_pirqs", "problems.0.offset": 0xE4},
    ),
    Case("1-features-unknown/lone-mark", featured("dom0|!"), ("feature-unknown",), facts={"problems.0.found": "!"}),
    Case("1-features-unknown/two-marks", featured("!!dom0"), ("feature-unknown",)),
    Case(
        "1-features-unknown/first-cause",
        kernel(text(10, "!new")),
        ("feature-unknown", "phys32-entry-missing", "loader", "xen-version"),
    ),
    Case(
        "1-features-token-64/62-bytes-and-bar",
        featured("x" * 62 + "|dom0"),
        warnings=("feature-ignored",),
        facts={"features.supported": 1 << 11, "warnings.0.hint": ""},
    ),
    Case(
        "1-features-token-64/63-bytes-leave-the-bar",
        featured("x" * 63 + "|dom0"),
        warnings=("feature-ignored",),
        facts={"features.supported": 1 << 11, "warnings.0.hint": "Xen cuts names at 63 bytes"},
    ),
    Case(
        "1-features-token-64/the-rest-is-a-token",
        featured("x" * 63 + "dom0"),
        warnings=("feature-ignored",),
        facts={"features.supported": 1 << 11},
    ),
    Case(
        "1-features-token-64/the-rest-may-require",
        featured("x" * 63 + "!no"),
        ("feature-unknown",),
        ("feature-ignored",),
    ),
    Case("1-supported-features", kernel(entry_note(), note(17, u32(0x8001))), facts={"features.supported": 0x8001}),
    Case(
        "1-supported-features/first-word", kernel(entry_note(), note(17, u32(1, 0xFF))), facts={"features.supported": 1}
    ),
    Case("1-supported-features/empty", kernel(entry_note(), note(17, b"")), facts={"features.supported": 0}),
    Case(
        "1-supported-features/6-bytes",
        kernel(entry_note(), note(17, b"\xff" * 6)),
        (),
        ("note-size",),
        {"features.supported": 0},
    ),
    Case(
        "1-supported-features/or",
        kernel(entry_note(), text(10, "!dom0"), note(17, u32(1))),
        ("dom0-required",),
        facts={"features.supported": 0x801},
    ),
    Case(
        "1-supported-features/32-bits-have-names",
        kernel(entry_note(), note(17, u32(1 << 31))),
        facts={"features.supported": 1 << 31},
    ),
    Case("1-dom0-required", featured("!dom0"), ("dom0-required",), facts={"bootable": False}),
    Case("1-dom0-required/supported-is-fine", featured("dom0")),
]


CASES = [*_kinds(), *NOTES, *FEATURES]
