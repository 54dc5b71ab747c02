"""Faults on the way to a handler, by what the descriptor tables and the TSS say (Intel SDM vol. 3, 6.12.1 and 6.13)."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from engines.emulator.harness import (
    CODE0,
    CODE3,
    DATA0,
    GDT,
    HANDLER,
    LDT,
    STACK0,
    TSS,
    TSS_SELECTOR,
    descriptor,
    gate32,
    gate64,
    image32,
    image64,
    run,
)
from engines.flat import CODE
from pvh.abi import x86
from pvh.build.cpu_state import SegmentRegister
from pvh.build.image import Image
from pvh.engines.exits import PortOut

FAULTS = {vector: gate32(CODE0, HANDLER + 16 * vector) for vector in (x86.TS, x86.NP, x86.SS, x86.GP)}
SPARE = 0x30


def prepared(image: Image) -> Image:
    for vector in FAULTS:
        image.ram.write(HANDLER + 16 * vector, b"\xe6\xf4\xf4")
    return image


def fault_of(image: Image) -> tuple[int, int]:
    """Run to a fault's handler; return its vector and error code."""
    ran = run(prepared(image))
    assert isinstance(ran.exits[-1], PortOut)
    return (ran.state.rip - HANDLER) // 16, ran.stack(1, 4)[0]


def with_descriptor(image: Image, selector: int, value: int) -> Image:
    image.ram.write(GDT + (selector & 0xFFF8), struct.pack("<Q", value))
    return image


@pytest.mark.parametrize(
    ("selector", "value", "vector", "error"),
    [
        (0, 0, x86.GP, 0),  # null
        (0x100, 0, x86.GP, 0x100),  # beyond the table
        (SPARE, descriptor(0, 0xFFFFF, 0xC92), x86.GP, SPARE),  # data
        (SPARE, descriptor(0, 0xFFFFF, 0xCFA), x86.GP, SPARE),  # less privileged than the program
        (SPARE, descriptor(0, 0xFFFFF, 0xC1A), x86.NP, SPARE),  # not present
        (SPARE | 4, 0, x86.GP, SPARE | 4),  # in an LDT that is none
    ],
)
def test_a_gate_s_code_segment(selector: int, value: int, vector: int, error: int) -> None:
    image = image32("int $0x40", {0x40: gate32(selector, HANDLER), **FAULTS})
    assert fault_of(with_descriptor(image, selector, value) if value else image) == (vector, error)


def test_an_exception_marks_its_error_as_external() -> None:
    image = image32("ud2", {x86.UD: gate32(0x100, HANDLER), **FAULTS})
    assert fault_of(image) == (x86.GP, 0x101)


def test_a_code_segment_of_the_local_table() -> None:
    image = image32("int $0x40", {0x40: gate32(0x0C, HANDLER)})
    image.ram.write(LDT, struct.pack("<QQ", 0, descriptor(0, 0xFFFFF, 0xC9A)))
    image = replace(image, entry=replace(image.entry, ldtr=SegmentRegister(SPARE, LDT, 0xF, 0x82)))
    assert run(image).state.cs.selector == 0x0C


def test_a_conforming_handler_keeps_the_program_s_privilege_and_stack() -> None:
    image = image32("int $0x40", {0x40: gate32(SPARE, HANDLER, dpl=3)}, cpl=3)
    ran = run(with_descriptor(image, SPARE, descriptor(0, 0xFFFFF, 0xC9E)))
    assert ran.state.cpl == 3
    assert ran.stack(2, 4) == (CODE + 2, CODE3)


@pytest.mark.parametrize(
    ("selector", "value", "vector", "error"),
    [
        (0, 0, x86.TS, 0),
        (DATA0 | 3, 0, x86.TS, DATA0),
        (CODE0, 0, x86.TS, CODE0),
        (0x200, 0, x86.TS, 0x200),
        (SPARE, descriptor(0, 0xFFFFF, 0xC12), x86.SS, SPARE),
    ],
)
def test_the_stack_segment_of_the_tss(selector: int, value: int, vector: int, error: int) -> None:
    gates = {0x40: gate32(CODE0, HANDLER, dpl=3), **FAULTS}
    # The fault's own handler runs at the program's privilege, as the stack is no good.
    conforming = descriptor(0, 0xFFFFF, 0xC9E)
    gates |= {fault: gate32(0x38, HANDLER + 16 * fault) for fault in FAULTS}
    image = image32("int $0x40", gates, cpl=3)
    image.ram.write(GDT + 0x38, struct.pack("<Q", conforming))
    image = replace(image, entry=replace(image.entry, gdtr=replace(image.entry.gdtr, limit=0x3F)))
    image.ram.write(TSS + 8, struct.pack("<H", selector))
    assert fault_of(with_descriptor(image, selector, value) if value else image) == (vector, error)


def test_a_tss_too_short_for_its_stack() -> None:
    gates = {0x40: gate32(CODE0, HANDLER, dpl=3), x86.TS: gate32(SPARE, HANDLER + 16 * x86.TS)}
    image = with_descriptor(image32("int $0x40", gates, cpl=3), SPARE, descriptor(0, 0xFFFFF, 0xC9E))
    image = replace(image, entry=replace(image.entry, tr=SegmentRegister(TSS_SELECTOR, TSS, 7, 0x8B)))
    assert fault_of(image) == (x86.TS, TSS_SELECTOR)


def test_a_16_bit_tss_has_its_stack_elsewhere() -> None:
    image = image32("int $0x40", {0x40: gate32(CODE0, HANDLER, dpl=3)}, cpl=3)
    image.ram.write(TSS + 2, struct.pack("<HH", 0x9000, DATA0))
    image = replace(image, entry=replace(image.entry, tr=SegmentRegister(TSS_SELECTOR, TSS, 0x2B, 0x83)))
    assert run(image).state.gprs[4] == 0x9000 - 20


def test_a_stack_outside_its_limit_is_a_stack_fault_and_then_a_double_fault() -> None:
    image = image32("mov $8,%esp; int $0x40", {0x40: gate32(CODE0, HANDLER), x86.SS: gate32(CODE0, HANDLER)})
    assert type(run(image).exits[-1]).__name__ == "Shutdown"


@pytest.mark.parametrize(("table", "vector", "error"), [("ist", x86.TS, TSS_SELECTOR), ("limit", x86.GP, 0x202)])
def test_long_mode_s_tables(table: str, vector: int, error: int) -> None:
    gates = {0x40: gate64(CODE0, HANDLER, ist=1), vector: gate64(CODE0, HANDLER + 16 * vector)}
    image = image64("int $0x40", gates)
    entry = image.entry
    if table == "ist":
        image = replace(image, entry=replace(entry, tr=replace(entry.tr, limit=0x20)))
    else:
        image = replace(image, entry=replace(entry, idtr=replace(entry.idtr, limit=0x3FF)))
    image.ram.write(HANDLER + 16 * vector, b"\xe6\xf4\xf4")
    assert run(image).stack(2, 8) == (error, CODE)


def test_long_mode_addresses_must_be_canonical() -> None:
    handler = gate64(CODE0, 1 << 47)
    gates = {0x40: handler, x86.GP: gate64(CODE0, HANDLER)}
    assert run(image64("int $0x40", gates)).stack(2, 8) == (0, CODE)
    stack = {0x40: gate64(CODE0, HANDLER), x86.SS: gate64(CODE0, HANDLER, ist=1)}
    for pointer in 0x800000000010, 0x900000000000, 0xFFFF800000000000:
        assert run(image64(f"mov ${pointer:#x}, %rsp; int $0x40", stack)).stack(2, 8) == (0, CODE + 10)


def test_a_frame_across_two_pages() -> None:
    ran = run(image64(f"mov ${STACK0 + 16:#x}, %rsp; int $0x40", {0x40: gate64(CODE0, HANDLER)}))
    assert ran.stack(5, 8) == (CODE + 9, CODE0, x86.RFLAGS_ONE, STACK0 + 16, DATA0)


class TestPortPermissions:
    def image(self, port: int, bitmap: bytes, limit: int = 0xFF) -> Image:
        image = image32(f"in ${port:#x},%ax; out %al,$0xf4", {x86.GP: gate32(CODE0, HANDLER)}, cpl=3)
        image.ram.write(TSS + 0x66, struct.pack("<H", 0x80))
        image.ram.write(TSS + 0x80, bitmap)
        tr = SegmentRegister(TSS_SELECTOR, TSS, limit, 0x8B)
        return replace(image, entry=replace(image.entry, rflags=x86.RFLAGS_ONE, tr=tr))

    def refused(self, image: Image) -> bool:
        return run(image).state.rip >= HANDLER

    def test_the_bitmap_of_the_tss_decides_for_each_byte(self) -> None:
        allowed = bytearray(b"\xff" * 0x40)
        allowed[0x80 // 8] &= ~0b11
        allowed[0xF4 // 8] &= ~(1 << 4)
        assert not self.refused(self.image(0x80, bytes(allowed)))
        allowed[0x80 // 8] |= 0b10
        assert self.refused(self.image(0x80, bytes(allowed)))

    def test_ports_beyond_the_tss_are_refused(self) -> None:
        assert self.refused(self.image(0x80, bytes(0x40), limit=0x90))
        assert self.refused(self.image(0x80, bytes(0x40), limit=0x60))
