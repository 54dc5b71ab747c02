"""Lints: one odd file for each, and the file beside it that is fine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from elfwriter import SHT_NOTE, Elf, Load, R, Section, W, X, entry_note, note, notes, u32, u64
from pvh.conformance.lints import lint
from pvh.kernel.read import read_source
from pvh.kernel.source import BytesSource
from pvh.plan.options import BootOptions

ENTRY = 0x100000
CODE = bytes.fromhex("fa fc bc 00201000 f4")  # cli; cld; mov $0x102000, %esp; hlt
WIDE = bytes.fromhex("48 89 e5 48 31 c0 f4")  # mov %rsp, %rbp; xor %rax, %rax; hlt
PHYS32_ENTRY = entry_note(ENTRY)
IN_A_SECTION = Elf((Load(ENTRY, CODE),), (Section(".note.Xen", PHYS32_ENTRY, SHT_NOTE),))


def found(made: Elf, options: BootOptions | None = None) -> set[tuple[str, str]]:
    kernel = read_source(BytesSource("k", made.build()))
    return {(finding.clause, finding.grade) for finding in lint(kernel, options or BootOptions())}


def image(*records: bytes, code: bytes = CODE, **fields: int) -> Elf:
    load = Load(**{"paddr": ENTRY, "flags": R | W | X, **fields}, data=code)
    return Elf((load, notes(b"".join(records or (PHYS32_ENTRY,)))))


def test_a_plain_kernel_has_none() -> None:
    assert found(image()) == set()


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
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
    ],
)
def test_what_is_odd_is_found(made: Elf, wanted: tuple[str, str]) -> None:
    assert wanted in found(made)


def test_jumps_end_the_look_at_the_entry() -> None:
    """Behind a jump may be anything: data, or 64-bit code."""
    assert found(image(code=bytes.fromhex("eb 07") + WIDE + b"\xf4")) == set()


def test_what_fits_with_more_memory_fits() -> None:
    assert found(image(memsz=1 << 30), BootOptions(memory=2 << 30)) == set()


@pytest.mark.parametrize("name", ["vmlinuz-cloud-6.1", "vmlinuz-6.12", "grub-i386-xen_pvh.bin", "xen-shim"])
def test_released_kernels_break_nothing(specimen: Callable[[str], Path], name: str) -> None:
    from pvh.kernel.read import read_kernel

    assert [f for f in lint(read_kernel(str(specimen(name))), BootOptions()) if f.grade == "violation"] == []
