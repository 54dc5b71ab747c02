"""What a person is told after a run that went wrong (issue 2, clause 5)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

import elfwriter
from build.tables import LONG, Tables
from elfwriter import Load
from pvh.abi import x86
from pvh.build.builder import build
from pvh.build.cpu_state import CpuState, SegmentRegister
from pvh.build.image import Image
from pvh.diagnosis import explain, mode
from pvh.kernel.read import read_source
from pvh.kernel.source import BytesSource
from pvh.outcome import Ending, Outcome
from pvh.plan.options import BootOptions
from pvh.plan.planner import plan
from test_symbols import Sym, tables

MIB = 1 << 20
PADDR, VADDR = 0x200000, 0xFFFFFFFF80200000
START = bytes.fromhex("31c0 40 83f805 75fa e802000000")  # xor eax, eax; 2: inc eax; cmp eax, 5; jne 2b; call main
MAIN = bytes.fromhex("90 90 0f0b f4")  # at 0xf, behind two bytes of padding: nop; nop; ud2; hlt
CODE = START + bytes.fromhex("9090") + MAIN

MakeImage = Callable[..., Image]


@pytest.fixture
def image() -> Iterator[MakeImage]:
    """Return a maker of images: a kernel at PADDR, linked for vaddr, with or without symbols."""
    made: list[Image] = []

    def make(*, vaddr: int = PADDR, symbols: bool = True, bits: int = 64) -> Image:
        names = tables(Sym(b"start", vaddr, len(START)), Sym(b"main", vaddr + 0xF, len(MAIN)), bits=bits)
        loads = (Load(PADDR, CODE, memsz=0x1000, vaddr=vaddr), elfwriter.notes(elfwriter.entry_note(PADDR)))
        data = elfwriter.Elf(loads, names if symbols else (), bits=bits).build()
        made.append(build(plan(read_source(BytesSource("kernel", data)), BootOptions(memory=32 * MIB))))
        return made[-1]

    yield make
    for one in made:
        one.ram.close()


def ended(
    cpu: CpuState | None, *recent: int, ending: Ending = "triple-fault", changed: tuple[str, ...] = ()
) -> Outcome:
    return Outcome(ending, 12, "vCPU 0 triple-faulted: #UD, then #GP", "emulator", 0, cpu, recent, changed)


def line(lines: list[str], start: str) -> str:
    found = [text for text in lines if text.strip().startswith(start)]
    assert len(found) == 1, lines
    return found[0]


def test_the_cause_comes_first_then_files_that_changed(image: MakeImage) -> None:
    made = image()
    lines = explain(ended(made.entry, changed=("initrd was rewritten",)), made)
    assert lines[0] == "triple-fault: vCPU 0 triple-faulted: #UD, then #GP"
    assert lines[1] == "while the guest ran, initrd was rewritten"


def test_of_a_run_that_ended_in_order_only_changed_files_are_told(image: MakeImage) -> None:
    made = image()
    assert explain(ended(made.entry, ending="poweroff", changed=("k was cut from 9 to 5 bytes",)), made) == [
        "while the guest ran, k was cut from 9 to 5 bytes"
    ]


@pytest.mark.parametrize(
    ("rip", "told"),
    [
        (PADDR + 0x14, "idle: waiting for an interrupt in HLT at 0x200013: main+0x4/0x5"),
        (PADDR + 0x11, "idle: waiting for an event in the hypercall before 0x200011: main+0x2/0x5"),
        (0xFFFFFF00, "idle: waiting for an event in the hypercall before 0xffffff00: no memory (physical 0xffffff00)"),
    ],
)
def test_of_an_idle_guest_at_its_deadline_the_place_is_all(image: MakeImage, rip: int, told: str) -> None:
    made = image()
    outcome = replace(ended(replace(made.entry, rip=rip), ending="deadline"), idle=True)
    assert explain(outcome, made)[1:] == [told]
    assert len(explain(replace(outcome, ending="hang"), made)) > 10


def test_without_registers_the_cause_is_all(image: MakeImage) -> None:
    assert len(explain(ended(None), image())) == 1


@pytest.mark.parametrize("bits", [32, 64])
def test_rip_is_a_symbol_and_an_offset(image: MakeImage, bits: int) -> None:
    made = image(bits=bits)
    lines = explain(ended(replace(made.entry, rip=PADDR + 0x11)), made)
    assert line(lines, "vCPU 0 at RIP") == "vCPU 0 at RIP 0x200011: main+0x2/0x5"


def test_without_symbols_rip_is_a_segment_and_an_offset(image: MakeImage) -> None:
    made = image(symbols=False)
    lines = explain(ended(replace(made.entry, rip=PADDR + 0x11)), made)
    assert line(lines, "vCPU 0 at RIP").endswith(": segment 0 (paddr 0x200000)+0x11")


def test_where_segments_overlap_the_later_ones_bytes_are_those_in_memory() -> None:
    loads = (Load(PADDR, CODE, memsz=0x1000), Load(PADDR + 0xF, MAIN))
    data = elfwriter.Elf((*loads, elfwriter.notes(elfwriter.entry_note(PADDR)))).build()
    made = build(plan(read_source(BytesSource("kernel", data)), BootOptions(memory=32 * MIB)))
    lines = explain(ended(replace(made.entry, rip=PADDR + 0x11)), made)
    assert line(lines, "vCPU 0 at RIP").endswith(": segment 1 (paddr 0x20000f)+0x2")
    made.ram.close()


def test_before_paging_a_kernel_linked_high_is_found_by_physical_address(image: MakeImage) -> None:
    made = image(vaddr=VADDR)
    lines = explain(ended(replace(made.entry, rip=PADDR)), made)
    assert line(lines, "vCPU 0 at RIP").endswith(": start+0x0/0xd")


def paged(made: Image, rip: int, *pages: tuple[int, int]) -> CpuState:
    tables_ = Tables(made.ram, LONG, at=16 * MIB)
    for linear, gpa in pages:
        tables_.map(linear, gpa)
    return tables_.cpu(rip=rip)


def test_with_paging_a_kernel_linked_high_is_found_through_its_page_tables(image: MakeImage) -> None:
    made = image(vaddr=VADDR)
    for linear in (VADDR, 0x7000):  # at its own place, and by an alias
        lines = explain(ended(paged(made, linear + 0xF, (linear, PADDR))), made)
        assert line(lines, "vCPU 0 at RIP").endswith(": main+0x0/0x5")


def test_a_kernel_that_moved_itself_is_found_by_virtual_address(image: MakeImage) -> None:
    made = image(vaddr=VADDR)
    lines = explain(ended(paged(made, VADDR + 0xF, (VADDR, 8 * MIB))), made)
    assert line(lines, "vCPU 0 at RIP").endswith(": main+0x0/0x5")


def test_memory_that_is_not_mapped_is_said_to_be_so(image: MakeImage) -> None:
    made = image(vaddr=VADDR)
    lines = explain(ended(paged(made, VADDR, (0x7000, PADDR)), VADDR + 0xF), made)
    assert line(lines, "vCPU 0 at RIP").endswith(": start+0x0/0xd (not mapped)")
    assert lines[-1] == f"=> {VADDR:#x}: not mapped, nothing to read"
    assert f"    {VADDR + 0xF:#x}: not mapped, nothing to read" in lines
    lost = explain(ended(paged(made, 0x123456, (0x7000, PADDR))), made)
    assert line(lost, "vCPU 0 at RIP").endswith(": outside the kernel (not mapped)")


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (24 * MIB, "RAM outside the kernel (physical 0x1800000)"),
        (0xD0000000, "no memory (physical 0xd0000000)"),
    ],
)
def test_outside_the_kernel_rip_is_what_the_plan_put_there(image: MakeImage, where: int, name: str) -> None:
    made = image()
    assert line(explain(ended(replace(made.entry, rip=where)), made), "vCPU 0 at RIP").endswith(f": {name}")
    info = made.plan.start_info.paddr
    told = line(explain(ended(replace(made.entry, rip=info + 4)), made), "vCPU 0 at RIP")
    assert told.endswith(": start_info+0x4, outside the kernel")


def test_registers_are_as_wide_as_the_code(image: MakeImage) -> None:
    made = image(vaddr=VADDR)
    gprs = tuple(range(0xAB00, 0xAB10))
    narrow = explain(ended(replace(made.entry, gprs=gprs, rip=PADDR)), made)
    assert line(narrow, "eax") == "  eax 0000ab00  ecx 0000ab01  edx 0000ab02  ebx 0000ab03"
    assert line(narrow, "eip") == "  eip 00200000"
    wide = explain(ended(replace(paged(made, VADDR, (VADDR, PADDR)), gprs=gprs)), made)
    assert line(wide, "rax") == "  rax 000000000000ab00  rcx 000000000000ab01  rdx 000000000000ab02"
    assert line(wide, "r15") == f"  r15 000000000000ab0f  rip {VADDR:016x}"


def test_flags_and_control_registers_are_named(image: MakeImage) -> None:
    made = image()
    cpu = replace(
        made.entry, rip=PADDR, rflags=0x210246, cr0=0x80050033, cr2=0xDEAD, cr3=0x5000, cr4=0x3116B0, efer=0xD01,
        tr=SegmentRegister(0x40, 0x6000, 0x67, 0x8B),
    )  # fmt: skip
    lines = explain(ended(cpu), made)
    assert line(lines, "rflags") == "  rflags 210246 [PF ZF IF RF ID]"
    assert line(lines, "cr0") == "  cr0 80050033 [PE MP ET NE WP AM PG]   cr2 dead   cr3 5000"
    assert line(lines, "cr4") == (
        "  cr4 3116b0 [PSE PAE PGE OSFXSR OSXMMEXCPT LA57 FSGSBASE SMEP SMAP]   efer d01 [SCE LME LMA NX]"
    )
    assert "tr   0040 base 6000 limit 67 ar 8b" in line(lines, "tr ")
    assert "gs   0000 null" in line(lines, "fs ")


@pytest.mark.parametrize(
    ("said", "cpu"),
    [
        ("real mode, paging off, CPL 0, interrupts on", CpuState(rflags=0x202)),
        ("16-bit protected mode, paging off, CPL 0, interrupts off", CpuState(cr0=0x11)),
        (
            "32-bit protected mode, 32-bit paging, CPL 3, interrupts off",
            CpuState(cr0=0x80000011, cs=SegmentRegister(attributes=0xCFB), ss=SegmentRegister(attributes=0xCF3)),
        ),
        (
            "virtual-8086 mode, PAE paging, CPL 3, interrupts off",
            CpuState(cr0=0x80000011, cr4=x86.CR4_PAE, rflags=x86.RFLAGS_VM),
        ),
        (
            "32-bit compatibility mode, 4-level paging, CPL 0, interrupts off",
            CpuState(cr0=0x80000011, cr4=0x20, efer=0x500, cs=SegmentRegister(attributes=0xC9B)),
        ),
        (
            "64-bit mode, 5-level paging, CPL 0, interrupts off",
            CpuState(cr0=0x80000011, cr4=0x1020, efer=0x500, cs=SegmentRegister(attributes=0xA9B)),
        ),
    ],
    ids=lambda value: value.split(",")[0] if isinstance(value, str) else "",
)
def test_modes_are_told_by_their_manuals_names(said: str, cpu: CpuState) -> None:
    assert mode(cpu) == said


def instructions(lines: list[str]) -> list[str]:
    """Return the lines below `last instructions executed`, with runs of blanks made one."""
    start = next(index for index, text in enumerate(lines) if text.startswith("last instructions executed"))
    return [" ".join(text.split()) for text in lines[start + 1 :]]


def test_the_last_blocks_are_disassembled_up_to_rip(image: MakeImage) -> None:
    made = image()
    cpu = replace(made.entry, rip=PADDR + 0x11)
    lines = explain(ended(cpu, PADDR, *[PADDR + 2] * 4, PADDR + 8, PADDR + 0xF), made)
    assert instructions(lines) == [
        "0x200000 start+0x0/0xd",
        "0x200000: 31c0 xor eax, eax",
        "0x200002: 40 inc eax",
        "0x200003: 83f805 cmp eax, 5",
        "0x200006: 75fa jne 0x200002",
        "0x200002 start+0x2/0xd (4 times)",
        "0x200002: 40 inc eax",
        "0x200003: 83f805 cmp eax, 5",
        "0x200006: 75fa jne 0x200002",
        "0x200008 start+0x8/0xd",
        "0x200008: e802000000 call 0x20000f",
        "0x20000f main+0x0/0x5",
        "0x20000f: 90 nop",
        "0x200010: 90 nop",
        "=> 0x200011: 0f0b ud2",
        "0x200013: f4 hlt",
        "0x200014: 0000 add byte ptr [eax], al",
    ]


def test_code_is_decoded_in_the_processors_own_width(image: MakeImage) -> None:
    made = image(vaddr=VADDR)
    made.ram.write(PADDR, bytes.fromhex("4889c8 f4"))
    wide = explain(ended(paged(made, VADDR, (VADDR, PADDR))), made)
    assert " ".join(line(wide, "=>").split()) == f"=> {VADDR:#x}: 4889c8 mov rax, rcx"
    narrow = explain(ended(replace(made.entry, rip=PADDR)), made)
    assert " ".join(line(narrow, "=>").split()) == "=> 0x200000: 48 dec eax"


def test_real_mode_code_lies_at_its_segments_base(image: MakeImage) -> None:
    made = image()
    made.ram.write(0x12345, bytes.fromhex("b83412 cd10"))
    cpu = CpuState(rip=0x345, cs=SegmentRegister(0x1200, 0x12000, 0xFFFF, 0x9B))
    lines = explain(ended(cpu), made)
    assert " ".join(line(lines, "=>").split()) == "=> 0x12345: b83412 mov ax, 0x1234"


def test_long_histories_and_long_blocks_are_cut_to_their_newest(image: MakeImage) -> None:
    made = image()
    made.ram.write(PADDR + 0x100, b"\x90" * 30 + b"\xf4")
    lines = instructions(explain(ended(replace(made.entry, rip=PADDR), *[PADDR, PADDR + 8] * 40, PADDR + 0x100), made))
    assert "... 23 more" in lines
    assert lines.count("0x20011e: f4 hlt") == 1
    assert len(lines) == 24 + 3  # of history; of what is ahead
    assert lines[0] == "0x200000 start+0x0/0xd"


def test_bytes_that_are_no_instruction_are_shown_as_they_are(image: MakeImage) -> None:
    made = image()
    made.ram.write(PADDR, b"\xff" * 16)
    lines = explain(ended(replace(made.entry, rip=PADDR)), made)
    assert lines[-1] == f"=> 0x200000: {'ff' * 15} is no instruction"


def test_code_is_read_up_to_where_memory_ends(image: MakeImage) -> None:
    made = image(vaddr=VADDR)
    made.ram.write(PADDR + 0xFFE, b"\x90\x90")
    lines = explain(ended(paged(made, VADDR + 0xFFE, (VADDR, PADDR))), made)
    assert [" ".join(text.split()) for text in lines[-2:]] == [
        f"=> {VADDR + 0xFFE:#x}: 90 nop", f"{VADDR + 0xFFF:#x}: 90 nop"
    ]  # fmt: skip


def test_without_capstone_addresses_are_told(image: MakeImage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "capstone", None)
    made = image()
    lines = explain(ended(made.entry, PADDR, PADDR + 8), made)
    assert lines[-2:] == [
        "last blocks executed, newest last: 0x200000 0x200008",
        "no disassembly: capstone is not installed (pip install capstone)",
    ]
