"""Images made of raw code bytes, for tests of engines: a flat 32-bit protected-mode state as PVH enters, or others."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

from pvh.abi import x86
from pvh.build.cpu_state import CpuState, SegmentRegister
from pvh.build.image import Image
from pvh.build.ram import GuestRam
from pvh.kernel.record import Kernel
from pvh.plan.options import BootOptions
from pvh.plan.record import Plan, StartInfo

CODE = 0x100000
STACK = 0x90000
MEMORY = 16 << 20

FLAT_CODE = SegmentRegister(0x08, 0, 0xFFFFFFFF, 0xC9B)
FLAT_DATA = SegmentRegister(0x10, 0, 0xFFFFFFFF, 0xC93)

FLAT_STATE = CpuState(
    gprs=(0, 0, 0, 0, STACK, *(0,) * 11),
    rip=CODE,
    cs=FLAT_CODE,
    ds=FLAT_DATA,
    es=FLAT_DATA,
    ss=FLAT_DATA,
    fs=FLAT_DATA,
    gs=FLAT_DATA,
    tr=SegmentRegister(0, 0, 0x67, 0x8B),
    cr0=x86.CR0_PE | x86.CR0_ET,
)
"""What the ABI promises: flat segments, paging off, interrupts off; plus a stack."""

REAL_STATE = replace(
    FLAT_STATE,
    rip=0x8000,
    cs=SegmentRegister(0, 0, 0xFFFF, 0x9B),
    **{name: SegmentRegister(0, 0, 0xFFFF, 0x93) for name in ("ds", "es", "ss", "fs", "gs")},  # type: ignore[arg-type]
    gprs=(0, 0, 0, 0, 0x7000, *(0,) * 11),
    cr0=x86.CR0_ET,
)
"""Real mode, code at 0x8000, stack below 0x7000."""

_PAGE_TABLES = 0x10000


def long_state(ram: GuestRam, *, user: bool = True) -> CpuState:
    """Return a 64-bit state with the first 4 MiB mapped identically (user pages if asked); fills tables at 0x10000."""
    rights = 7 if user else 3
    pml4, pdpt, pd = _PAGE_TABLES, _PAGE_TABLES + 0x1000, _PAGE_TABLES + 0x2000
    assert ram.write(pml4, (pdpt | rights).to_bytes(8, "little"))
    assert ram.write(pdpt, (pd | rights).to_bytes(8, "little"))
    for index in range(2):
        table = pd + 0x1000 * (index + 1)
        assert ram.write(pd + 8 * index, (table | rights).to_bytes(8, "little"))
        entries = b"".join(((index << 21 | page << 12) | rights).to_bytes(8, "little") for page in range(512))
        assert ram.write(table, entries)
    return replace(
        FLAT_STATE,
        cs=SegmentRegister(0x08, 0, 0xFFFFFFFF, 0xA9B),
        cr0=x86.CR0_PE | x86.CR0_ET | x86.CR0_PG | x86.CR0_WP,
        cr3=pml4,
        cr4=x86.CR4_PAE | x86.CR4_OSFXSR,
        efer=x86.EFER_LME | x86.EFER_LMA | x86.EFER_SCE | x86.EFER_NX,
    )


@cache
def assemble(source: str, bits: int = 32, origin: int = CODE) -> bytes:
    """Return the bytes GNU as makes of AT&T source for 16-, 32- or 64-bit mode, linked at origin."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "a.S").write_text(f".code{bits}\n.globl _start\n_start:\n{source}\n")
        emulation = "elf_x86_64" if bits == 64 else "elf_i386"
        subprocess.run(
            ["as", "--64" if bits == 64 else "--32", "-o", place / "a.o", place / "a.S"], check=True, timeout=20
        )
        subprocess.run(
            ["ld", "-m", emulation, f"-Ttext={origin:#x}", "--oformat=binary", "-o", place / "a.bin", place / "a.o"],
            check=True,
            timeout=20,
        )
        return (place / "a.bin").read_bytes()


def flat_image(
    code: bytes | str,
    state: CpuState = FLAT_STATE,
    *,
    at: int = CODE,
    ram: GuestRam | None = None,
    vcpus: int = 1,
) -> Image:
    """Return an image that runs code (bytes, or source for 32-bit mode) at a guest-physical address."""
    ram = ram or GuestRam(((0, MEMORY),))
    assert ram.write(at, assemble(code, origin=at) if isinstance(code, str) else code)
    plan = Plan(
        kernel=Kernel.__new__(Kernel),
        options=BootOptions(memory=MEMORY, vcpus=vcpus, engine="emulator"),
        ranges=(),
        memory_map=(),
        backed=tuple((block.gpa, block.size) for block in ram.blocks),
        entry=state.rip,
        start_info=StartInfo(0, 0, 0, 0, (), 0, 0),
    )
    return Image(plan, ram, state)
