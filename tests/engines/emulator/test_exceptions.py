"""Delivery through IVT and IDT: every mode, gate and fault on the way (Intel SDM vol. 3, chapters 6 and 21)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engines.emulator.harness import (
    CODE0,
    CODE3,
    DATA0,
    DATA3,
    HANDLER,
    IDT,
    IST,
    STACK0,
    STACK3,
    Ran,
    gate32,
    gate64,
    image32,
    image64,
    protected_world,
    run,
)
from engines.flat import CODE, REAL_STATE, assemble, flat_image
from pvh.abi import x86
from pvh.build.cpu_state import SegmentRegister, TableRegister
from pvh.build.image import Image
from pvh.build.ram import GuestRam
from pvh.engines.emulator.exceptions import EXTERNAL, SOFTWARE, Event, combine, fault
from pvh.engines.emulator.paging import GuestFault
from pvh.engines.exits import Broken, PortOut, Shutdown

RF, IF, TF = x86.RFLAGS_RF, x86.RFLAGS_IF, x86.RFLAGS_TF


def handled(ran: Ran) -> bool:
    return isinstance(ran.exits[-1], PortOut) and HANDLER <= ran.state.rip < HANDLER + 3


class TestRealMode:
    def image(self, code: str, limit: int = 0x3FF) -> Image:
        ram = GuestRam(((0, 16 << 20),))
        ram.write(0x21 * 4, b"\x00\x01\x00\x20")  # vector 0x21: 2000:0100
        ram.write(0x06 * 4, b"\x00\x01\x00\x20")
        ram.write(0x20100, b"\xe6\xf4\xf4")
        state = replace(REAL_STATE, idtr=TableRegister(0, limit), rflags=x86.RFLAGS_ONE | IF)
        return flat_image(assemble(code, 16, 0x8000), state, at=0x8000, ram=ram)

    def test_an_interrupt_pushes_flags_cs_ip_and_takes_the_vector(self) -> None:
        ran = run(self.image("int $0x21"))
        assert (ran.state.cs.selector, ran.state.cs.base) == (0x2000, 0x20000)
        assert ran.state.rip in {0x100, 0x102}
        assert ran.stack(3, 2) == (0x8002, 0, x86.RFLAGS_ONE | IF)
        assert ran.state.gprs[4] == 0x7000 - 6
        assert not ran.state.rflags & IF

    def test_a_fault_pushes_the_instruction_itself_and_no_error_code(self) -> None:
        ran = run(self.image("nop; ud2"))
        assert ran.stack(2, 2) == (0x8001, 0)

    def test_a_vector_outside_the_table_ends_in_shutdown(self) -> None:
        ran = run(self.image("int $0x21", limit=0x1F))
        assert isinstance(ran.exits[-1], Shutdown)

    def test_iret_returns(self) -> None:
        image = self.image("int $0x21; out %al, $0xf4")
        image.ram.write(0x20100, b"\xb0\x07\xcf")  # mov $7, %al ; iret
        ran = run(image)
        assert ran.exits[-1] == PortOut(0xF4, 1, 7)
        assert ran.state.rflags & IF


class TestProtectedMode:
    def test_an_interrupt_gate_clears_if_and_a_trap_gate_keeps_it(self) -> None:
        for kind, kept in (0xE, 0), (0xF, IF):
            ran = run(image32("sti; nop; int $0x40", {0x40: gate32(CODE0, HANDLER, kind)}))
            assert handled(ran)
            assert ran.state.rflags & IF == kept
            assert ran.stack(3, 4) == (CODE + 4, CODE0, x86.RFLAGS_ONE | IF)
            assert ran.state.gprs[4] == STACK0 - 0x800 - 12

    def test_a_fault_pushes_rf_and_its_error_code(self) -> None:
        ran = run(image32("mov $0x33, %eax; mov %eax, %ds", {x86.GP: gate32(CODE0, HANDLER)}))
        assert ran.stack(4, 4) == (0x30, CODE + 5, CODE0, x86.RFLAGS_ONE | RF)

    @pytest.mark.parametrize(
        ("code", "vector"),
        [("xor %ecx, %ecx; div %ecx", x86.DE), ("ud2", x86.UD), ("mov $9, %eax; mov %eax, %cr0; fnop", x86.NM)],
    )
    def test_faults_without_error_code(self, code: str, vector: int) -> None:
        ran = run(image32(code, {vector: gate32(CODE0, HANDLER)}))
        assert handled(ran)
        assert ran.stack(2, 4)[1] == CODE0

    def test_int3_and_into_return_behind_the_instruction(self) -> None:
        for code, vector, after in (("int3", x86.BP, 1), ("mov $0x7fffffff, %eax; inc %eax; into", x86.OF, 7)):
            ran = run(image32(code, {vector: gate32(CODE0, HANDLER)}))
            assert ran.stack(1, 4) == (CODE + after,)

    def test_from_user_mode_the_stack_is_the_tss_s_and_the_old_one_is_pushed(self) -> None:
        ran = run(image32("int $0x40", {0x40: gate32(CODE0, HANDLER, dpl=3)}, cpl=3))
        assert handled(ran)
        assert ran.state.cpl == 0
        assert (ran.state.ss.selector, ran.state.cs.selector) == (DATA0, CODE0)
        assert ran.state.gprs[4] == STACK0 - 20
        eip, cs, flags, esp, ss = ran.stack(5, 4)
        assert (eip, cs, esp, ss) == (CODE + 2, CODE3, STACK3, DATA3)
        assert flags >> 12 & 3 == 3

    def test_iret_goes_back_to_user_mode(self) -> None:
        image = image32("int $0x40; out %al, $0xf4", {0x40: gate32(CODE0, HANDLER, dpl=3)}, cpl=3)
        image.ram.write(HANDLER, b"\xb0\x09\xcf")
        ran = run(image)
        assert ran.exits[-1] == PortOut(0xF4, 1, 9)
        assert ran.state.cpl == 3
        assert ran.state.gprs[4] == STACK3

    def test_a_program_may_not_use_a_gate_of_higher_privilege(self) -> None:
        gates = {0x40: gate32(CODE0, HANDLER, dpl=0), x86.GP: gate32(CODE0, HANDLER)}
        ran = run(image32("int $0x40", gates, cpl=3))
        assert ran.stack(2, 4) == (0x40 * 8 | 2, CODE)  # IDT bit, EXT clear; the instruction itself

    def test_a_gate_that_is_not_present(self) -> None:
        gates = {0x40: gate32(CODE0, HANDLER, present=False), x86.NP: gate32(CODE0, HANDLER)}
        ran = run(image32("int $0x40", gates))
        assert ran.stack(2, 4) == (0x40 * 8 | 2, CODE)

    def test_a_16_bit_gate_pushes_words(self) -> None:
        image = image32("int $0x40", {0x40: gate32(CODE0, 0x8000, kind=6)})
        image.ram.write(0x8000, b"\xe6\xf4\xf4")
        ran = run(image)
        assert ran.stack(3, 2) == ((CODE + 2) & 0xFFFF, CODE0, x86.RFLAGS_ONE)
        assert ran.state.gprs[4] == STACK0 - 0x800 - 6

    def test_single_step_traps_after_the_instruction_even_one_the_engine_executes(self) -> None:
        setup = "pushf; orl $0x100, (%esp); popf;"
        for instruction, length in (("nop", 1), ("mov $0xfe, %ecx; rdmsr", 5)):
            ran = run(image32(setup + instruction, {x86.DB: gate32(CODE0, HANDLER)}))
            assert ran.stack(1, 4) == (CODE + 9 + length,)
            assert ran.state.dr6 & 1 << 14
            assert not ran.state.rflags & TF
        stepped = image32(setup.replace("popf", "mov $0xfe, %ecx; popf") + "rdmsr", {x86.DB: gate32(CODE0, HANDLER)})
        ran = run(stepped)
        assert ran.stack(1, 4) == (CODE + 9 + 5 + 2,)

    def test_icebp_is_a_debug_exception_behind_itself(self) -> None:
        ran = run(image32(".byte 0xf1", {x86.DB: gate32(CODE0, HANDLER)}))
        assert ran.stack(1, 4) == (CODE + 1,)

    def test_a_task_gate_is_reported_not_executed(self) -> None:
        ran = run(image32("int $0x40", {0x40: gate32(0x28, 0, kind=5)}))
        assert ran.exits == [Broken("vector 64 goes through a task gate")]

    def test_virtual_8086_mode_leaves_through_the_tss_with_its_segments_pushed(self) -> None:
        ram, state = protected_world({x86.GP: gate32(CODE0, HANDLER)})
        real = {name: SegmentRegister(0x1234, 0x12340, 0xFFFF, 0xF3) for name in ("ds", "es", "fs", "gs", "ss")}
        state = replace(
            state,
            rip=0x10,
            rflags=x86.RFLAGS_ONE | x86.RFLAGS_VM,
            cs=SegmentRegister(0x2000, 0x20000, 0xFFFF, 0xF3),
            **real,  # type: ignore[arg-type]
        )
        ran = run(flat_image(b"\xcd\x21", state, at=0x20010, ram=ram))
        assert ran.stack(10, 4) == (0, 0x10, 0x2000, ran.stack(4, 4)[3], state.gprs[4], 0x1234, *(0x1234,) * 4)
        assert ran.stack(4, 4)[3] & x86.RFLAGS_VM
        assert not ran.state.rflags & x86.RFLAGS_VM
        assert ran.state.ds == SegmentRegister()


class TestLongMode:
    def test_the_frame_has_five_words_on_an_aligned_stack(self) -> None:
        ran = run(image64("push %rax; int $0x40", {0x40: gate64(CODE0, HANDLER)}))
        old = STACK0 - 0x800 - 8
        assert handled(ran)
        assert ran.state.gprs[4] == (old & ~15) - 40
        assert ran.stack(5, 8) == (CODE + 3, CODE0, x86.RFLAGS_ONE, old, DATA0)
        assert ran.state.ss.selector == DATA0

    def test_from_user_mode_ss_becomes_null(self) -> None:
        ran = run(image64("int $0x40", {0x40: gate64(CODE0, HANDLER, dpl=3)}, cpl=3))
        assert handled(ran)
        assert ran.state.cpl == 0
        assert (ran.state.ss.selector, ran.state.ss.base) == (0, 0)
        assert ran.state.gprs[4] == STACK0 - 40
        rip, cs, flags, rsp, ss = ran.stack(5, 8)
        assert (rip, cs, rsp, ss) == (CODE + 2, CODE3, STACK3, DATA3)
        assert flags >> 12 & 3 == 3

    def test_iretq_goes_back_to_user_mode(self) -> None:
        image = image64("int $0x40; out %al, $0xf4", {0x40: gate64(CODE0, HANDLER, dpl=3)}, cpl=3)
        image.ram.write(HANDLER, b"\xb0\x09\x48\xcf")
        ran = run(image)
        assert ran.exits[-1] == PortOut(0xF4, 1, 9)
        assert (ran.state.cpl, ran.state.gprs[4]) == (3, STACK3)

    def test_an_ist_entry_replaces_the_stack(self) -> None:
        ran = run(image64("ud2", {x86.UD: gate64(CODE0, HANDLER, ist=1)}))
        assert ran.state.gprs[4] == IST - 40
        assert ran.stack(2, 8) == (CODE, CODE0)

    def test_a_page_fault_has_cr2_and_its_error_code(self) -> None:
        ran = run(image64("movl $1, 0x40001234", {x86.PF: gate64(CODE0, HANDLER)}))
        assert ran.state.cr2 == 0x40001234
        assert ran.stack(3, 8) == (2, CODE, CODE0)  # a write, page not present, supervisor

    def test_a_user_s_page_fault(self) -> None:
        ran = run(image64("mov 0x40000000, %eax", {x86.PF: gate64(CODE0, HANDLER)}, cpl=3))
        assert ran.stack(3, 8) == (4, CODE, CODE3)

    def test_an_address_that_is_not_canonical(self) -> None:
        code = "mov $0x800000000000, %rax; mov (%rax), %al"
        ran = run(image64(code, {x86.GP: gate64(CODE0, HANDLER)}))
        assert ran.stack(2, 8) == (0, CODE + 10)

    def test_a_handler_must_be_64_bit_code(self) -> None:
        gates = {0x40: gate64(DATA0, HANDLER), x86.GP: gate64(CODE0, HANDLER)}
        ran = run(image64("int $0x40", gates))
        assert ran.stack(2, 8) == (DATA0, CODE)


class TestTwoFaults:
    def test_a_contributory_fault_in_another_is_a_double_fault_with_error_0(self) -> None:
        gates = {x86.DE: gate64(DATA0, HANDLER), x86.DF: gate64(CODE0, HANDLER, ist=1)}
        ran = run(image64("xor %ecx, %ecx; div %ecx", gates))
        assert handled(ran)
        assert ran.stack(2, 8) == (0, CODE + 2)

    def test_a_page_fault_on_the_stack_of_a_page_fault_is_a_double_fault(self) -> None:
        gates = {x86.PF: gate64(CODE0, HANDLER), x86.DF: gate64(CODE0, HANDLER, ist=1)}
        ran = run(image64("mov $0x50000000, %rsp; mov 0x40000000, %al", gates))
        assert handled(ran)
        assert ran.state.cr2 == 0x50000000 - 8  # the first push

    def test_a_page_fault_on_the_way_to_an_interrupt_is_just_that(self) -> None:
        gates = {0x40: gate64(CODE0, HANDLER), x86.PF: gate64(CODE0, HANDLER, ist=1)}
        ran = run(image64("mov $0x50000000, %rsp; int $0x40", gates))
        assert handled(ran)
        assert ran.stack(2, 8) == (2, CODE + 7)

    def test_no_handler_at_all_is_a_triple_fault(self) -> None:
        image = image64("ud2", {})
        ran = run(image)
        assert isinstance(ran.exits[-1], Shutdown)
        assert ran.state.rip == CODE
        assert "vector 6" in ran.exits[-1].detail

    def test_the_empty_table_of_a_fresh_guest_is_a_triple_fault(self) -> None:
        assert isinstance(run(flat_image("int3")).exits[-1], Shutdown)

    def test_the_table_of_combinations(self) -> None:
        contributory = (x86.DE, x86.TS, x86.NP, x86.SS, x86.GP)
        for first in contributory:
            for second in contributory:
                assert combine(fault(first), GuestFault(second, 0)) == fault(x86.DF)
            assert combine(fault(first), GuestFault(x86.PF, 0, 5)) == fault(x86.PF, 0, 5)
        for second in (*contributory, x86.PF):
            assert combine(fault(x86.PF), GuestFault(second, 0)) == fault(x86.DF)
            assert combine(fault(x86.DF), GuestFault(second, 0)) is None
            assert combine(fault(x86.UD), GuestFault(second, 4)) == fault(second, 4)
            for source in SOFTWARE, EXTERNAL:
                assert combine(Event(13, None, source), GuestFault(second, 4)) == fault(second, 4)


def test_accessed_and_dirty_bits_are_set_for_the_frame() -> None:
    image = image64("mov $0x1ff000, %rsp; int $0x40", {0x40: gate64(CODE0, HANDLER)})
    ran = run(image)
    entry = int.from_bytes(ran.memory[0x13000 + 8 * 0x1FE :][:8], "little")
    assert entry & 0x60 == 0x60
    assert IDT < HANDLER
