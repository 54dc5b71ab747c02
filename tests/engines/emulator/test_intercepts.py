"""Instructions the engine executes for the guest, and the exits they give."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engines.emulator.harness import (
    CODE0,
    DATA0,
    HANDLER,
    gate32,
    gate64,
    image32,
    image64,
    run,
)
from engines.flat import CODE, FLAT_STATE, REAL_STATE, assemble, flat_image, long_state
from pvh.abi import x86
from pvh.build.cpu_state import SegmentRegister
from pvh.build.ram import GuestRam
from pvh.engines.emulator.vcpu import EmulatorVcpu
from pvh.engines.exits import (
    Exit,
    Halt,
    Hypercall,
    MmioRead,
    MmioWrite,
    MsrRead,
    MsrWrite,
    PortIn,
    PortOut,
)

OUT = "out %al, $0xf4"
GP_HANDLER = {x86.GP: gate32(CODE0, HANDLER), x86.UD: gate32(CODE0, HANDLER + 0x10)}


def refused_with(code: str, *, cpl: int = 0) -> str:
    """Return which of #GP and #UD 32-bit code ends with."""
    image = image32(code, GP_HANDLER, cpl=cpl)
    image.ram.write(HANDLER + 0x10, b"\xe6\xf4\xf4")
    ran = run(image)
    assert isinstance(ran.exits[-1], PortOut)
    return {HANDLER: "#GP", HANDLER + 0x10: "#UD"}.get(ran.state.rip & ~0xF, "executed")


class TestHypercalls:
    @pytest.mark.parametrize("instruction", ["vmcall", "vmmcall", ".byte 0x66; vmcall"])
    def test_32_bit_arguments_and_answer(self, instruction: str) -> None:
        code = "mov $5,%eax; mov $1,%ebx; mov $2,%ecx; mov $3,%edx; mov $4,%esi; mov $-5,%edi;"
        ran = run(flat_image(f"{code} {instruction}; {OUT}"), lambda _vcpu, _exit: -38)
        assert ran.exits[0] == Hypercall(5, (1, 2, 3, 4, 2**32 - 5), 32, 0)
        assert ran.state.gprs[0] == 2**32 - 38
        assert ran.exits[-1] == PortOut(0xF4, 1, 0xDA)

    def test_64_bit_arguments_and_answer(self) -> None:
        code = "mov $1,%rdi; mov $2,%rsi; mov $3,%rdx; mov $4,%r10; mov $-5,%r8; mov $1<<40,%rax; vmcall;"
        ran = run(image64(code + OUT, {}), lambda _vcpu, _exit: -38)
        assert ran.exits[0] == Hypercall(1 << 40, (1, 2, 3, 4, 2**64 - 5), 64, 0)
        assert ran.state.gprs[0] == 2**64 - 38

    def test_any_privilege_reaches_the_sink(self) -> None:
        assert run(image32(f"vmcall; {OUT}", {}, cpl=3)).exits[0] == Hypercall(0, (0, 0, 0, 0, 0), 32, 3)
        assert run(image64(f"vmmcall; {OUT}", {}, cpl=3)).exits[0] == Hypercall(0, (0, 0, 0, 0, 0), 64, 3)

    def test_16_bit_code(self) -> None:
        ran = run(flat_image(assemble(f"mov $7,%ax; vmcall; {OUT}", 16, 0x8000), REAL_STATE, at=0x8000))
        assert ran.exits[0] == Hypercall(7, (0, 0, 0, 0, 0), 16, 0)


class TestPorts:
    def test_sizes_and_answers(self) -> None:
        code = "mov $0x12345678,%eax; out %al,$0x80; out %ax,$0x80; out %eax,$0x80; in $0x80,%eax; mov %eax,%ebx;"
        ran = run(flat_image(code + OUT), lambda _vcpu, exit_: 0xAABBCCDD if isinstance(exit_, PortIn) else None)
        assert ran.exits[:-1] == [
            PortOut(0x80, 1, 0x78),
            PortOut(0x80, 2, 0x5678),
            PortOut(0x80, 4, 0x12345678),
            PortIn(0x80, 4),
        ]
        assert ran.state.gprs[3] == 0xAABBCCDD

    def test_string_forms_give_an_exit_for_each_step(self) -> None:
        values = iter(b"abc")
        code = f"""
            cld; mov $0x200000,%edi; mov $3,%ecx; mov $0x71,%dx; rep insb
            mov $0x200000,%esi; mov $3,%ecx; mov $0xe9,%dx; rep outsb; {OUT}"""
        ran = run(flat_image(code), lambda _vcpu, exit_: next(values) if isinstance(exit_, PortIn) else None)
        assert ran.exits[:-1] == [PortIn(0x71, 1)] * 3 + [PortOut(0xE9, 1, byte) for byte in b"abc"]
        assert ran.memory[0x200000:0x200004] == b"abc\0"

    def test_a_program_without_iopl_gets_gp(self) -> None:
        assert refused_with("pushf; andl $~0x3000,(%esp); popf; nop; out %al,$0x80;" + OUT) == "executed"
        image = image32("out %al,$0x80", {x86.GP: gate32(CODE0, HANDLER)}, cpl=3)
        image = replace(image, entry=replace(image.entry, rflags=x86.RFLAGS_ONE))
        assert run(image).stack(2, 4) == (0, CODE)

    def test_state_during_a_port_access_is_exact(self) -> None:
        ran = run(flat_image(f"mov $1,%ebx; out %al,$0x80; mov $2,%ebx; out %al,$0x80; {OUT}"))
        assert [state.gprs[3] for state in ran.states] == [1, 2, 2]
        assert [state.rip for state in ran.states] == [CODE + 5, CODE + 12, CODE + 14]


class TestMmio:
    def test_the_local_apic_hole_and_everything_else_that_is_no_ram(self) -> None:
        code = f"mov 0xfee00020,%eax; mov %eax,0x2000000; movb $7,0xfffff; movzwl 0x1000000,%ecx; {OUT}"
        ran = run(flat_image(code), lambda _vcpu, exit_: 0x11223344 if isinstance(exit_, MmioRead) else None)
        assert ran.exits[:-1] == [
            MmioRead(0xFEE00020, 4),
            MmioWrite(0x2000000, 4, 0x11223344),
            MmioRead(0x1000000, 2),
        ]
        assert ran.state.gprs[1] == 0x3344

    def test_a_hole_between_blocks_of_ram(self) -> None:
        ram = GuestRam(((0, 1 << 20), (2 << 20, 1 << 20)))
        code = assemble(f"mov 0x180000,%eax; mov %eax,0x200000; {OUT}", 32, 0x8000)
        image = flat_image(code, replace(FLAT_STATE, rip=0x8000), at=0x8000, ram=ram)
        ran = run(image, lambda _vcpu, exit_: 0xFFFFFFFF if isinstance(exit_, MmioRead) else None)
        assert ran.exits[0] == MmioRead(0x180000, 4)
        assert ran.state.gprs[0] == 0xFFFFFFFF

    def test_eight_bytes_arrive_in_accesses_that_cover_them(self) -> None:
        ram = GuestRam(((0, 3 << 20),))
        code = assemble(f"mov $0x1122334455667788,%rax; mov %rax,0x300000; mov 0x300008,%rbx; {OUT}", 64)
        image = flat_image(code, long_state(ram), ram=ram)
        ran = run(image, lambda _vcpu, exit_: exit_.address if isinstance(exit_, MmioRead) else None)
        written = {exit_.address: exit_.value for exit_ in ran.exits if isinstance(exit_, MmioWrite)}
        assert sum(value << 8 * (address - 0x300000) for address, value in written.items()) == 0x1122334455667788
        assert ran.state.gprs[3] in {0x300008, 0x30000C_00300008}

    def test_executing_where_there_is_no_memory_is_executing_ones_which_is_ud(self) -> None:
        ran = run(image32("jmp 0xfee00000", {x86.UD: gate32(CODE0, HANDLER)}))
        assert ran.stack(2, 4) == (0xFEE00000, CODE0)


class TestMsrs:
    def test_unknown_registers_go_to_the_sink_and_none_is_gp(self) -> None:
        def answer(_vcpu: EmulatorVcpu, exit_: Exit) -> int | None:
            return 0x1122334455667788 if exit_ == MsrRead(0x40000000) else None

        code = "mov $0x40000000,%ecx; mov $1,%eax; mov $2,%edx; rdmsr; mov %eax,%ebx; mov %edx,%esi; inc %ecx; rdmsr"
        ran = run(image32(code, GP_HANDLER), answer)
        assert ran.exits[:2] == [MsrRead(0x40000000), MsrRead(0x40000001)]
        assert (ran.state.gprs[3], ran.state.gprs[6]) == (0x55667788, 0x11223344)
        assert ran.stack(1, 4) == (0,)
        write = "mov $0x40000000,%ecx; mov $1,%eax; mov $2,%edx; wrmsr"
        assert run(image32(write, GP_HANDLER), lambda _vcpu, _exit: None).exits[0] == MsrWrite(0x40000000, 2 << 32 | 1)

    @pytest.mark.parametrize("index", [0x174, 0x175, 0xC0000081, 0xC0000082, 0xC0000101, 0xC0000102, 0xC0000103])
    def test_registers_the_processor_keeps(self, index: int) -> None:
        code = f"mov ${index},%ecx; mov $0x1234,%eax; xor %edx,%edx; wrmsr; xor %eax,%eax; rdmsr; {OUT}"
        ran = run(image32(code, GP_HANDLER))
        assert ran.exits == [PortOut(0xF4, 1, 0x34)]
        assert ran.state.gprs[0] == 0x1234

    @pytest.mark.parametrize(
        ("index", "value"),
        [
            (0x1B, 0xFEE00900),
            (0xFE, 0x508),
            (0x2FF, 0x806),
            (0x277, 0x0007040600070406),
            (0x8B, 0),
            (0x250, 0),
            (0x179, 0),
            (0xC0010015, 1 << 24),
            (0xC0011029, 2),
        ],
    )
    def test_values_at_entry(self, index: int, value: int) -> None:
        ran = run(flat_image(f"mov ${index},%ecx; rdmsr; {OUT}"))
        assert ran.state.gprs[2] << 32 | ran.state.gprs[0] == value

    def test_an_invalid_memory_type_is_refused(self) -> None:
        for index, low in (0x277, 2), (0x2FF, 3), (0x250, 7), (0x200, 2), (0xFE, 0), (0x1B, 0xFEE00D00):
            assert refused_with(f"mov ${index},%ecx; mov ${low},%eax; xor %edx,%edx; wrmsr; {OUT}") == "#GP"

    def test_mtrrs_can_be_set(self) -> None:
        code = f"mov $0x2ff,%ecx; mov $0xc06,%eax; xor %edx,%edx; wrmsr; rdmsr; {OUT}"
        ran = run(flat_image(code))
        assert (ran.state.gprs[0], ran.state.mtrr_def_type) == (0xC06, 0xC06)

    def test_the_tsc_runs_and_can_be_set(self) -> None:
        code = f"""mov $0x10,%ecx; rdmsr; mov %eax,%ebx; rdtsc; sub %ebx,%eax; mov %eax,%esi
            mov $0x1000,%edx; xor %eax,%eax; wrmsr; rdtsc; mov %edx,%edi; rdmsr; {OUT}"""
        ran = run(flat_image(code))
        assert 0 < ran.state.gprs[6] < 100_000_000
        assert ran.state.gprs[7] == ran.state.gprs[2] == 0x1000

    def test_program_may_not(self) -> None:
        assert refused_with("xor %ecx,%ecx; rdmsr", cpl=3) == "#GP"


class TestSvmIsHidden:
    @pytest.mark.parametrize("code", ["vmrun", "vmload", "vmsave", "stgi", "clgi", "skinit", "invlpga"])
    def test_its_instructions_do_not_exist(self, code: str) -> None:
        assert refused_with(f"{code}; {OUT}") == "#UD"

    @pytest.mark.parametrize("index", [0xC0010114, 0xC0010117])
    def test_its_registers_do_not_exist(self, index: int) -> None:
        assert refused_with(f"mov ${index},%ecx; rdmsr; {OUT}") == "#GP"
        assert refused_with(f"mov ${index},%ecx; xor %eax,%eax; xor %edx,%edx; wrmsr; {OUT}") == "#GP"

    def test_efer_svme_cannot_be_set_nor_seen(self) -> None:
        code = f"mov $0xc0000080,%ecx; rdmsr; mov %eax,%ebx; or $0x1000,%eax; wrmsr; {OUT}"
        assert refused_with(code) == "#GP"
        assert run(image32(code, GP_HANDLER)).state.gprs[3] == 0

    @pytest.mark.parametrize("code", ["monitor", "mwait", "xgetbv", "xsetbv", "rsm", "rdpmc"])
    def test_other_instructions_that_cpuid_does_not_offer(self, code: str) -> None:
        wanted = "#GP" if code == "rdpmc" else "#UD"
        assert refused_with(f"xor %ecx,%ecx; {code}; {OUT}") == wanted


class TestControlRegisters:
    @pytest.mark.parametrize(
        "code",
        [
            "mov $0x80000010,%eax; mov %eax,%cr0",  # PG without PE
            "mov $0x20000011,%eax; mov %eax,%cr0",  # NW without CD
            "mov $0x1000,%eax; mov %eax,%cr4",  # LA57
            "mov $0x20000,%eax; mov %eax,%cr4",  # PCIDE
            "mov $0x40000,%eax; mov %eax,%cr4",  # OSXSAVE
            "mov $0xc0000080,%ecx; xor %edx,%edx; mov $0x100,%eax; wrmsr; mov $0x80000011,%eax; mov %eax,%cr0",
            "mov $0xc0000080,%ecx; xor %edx,%edx; mov $0x2,%eax; wrmsr",
        ],
    )
    def test_what_hardware_refuses(self, code: str) -> None:
        assert refused_with(f"{code}; {OUT}") == "#GP"

    def test_lme_cannot_change_under_paging(self) -> None:
        code = "mov $0xc0000080,%ecx; rdmsr; and $~0x100,%eax; wrmsr"
        assert run(image64(code, {x86.GP: gate64(CODE0, HANDLER)})).stack(2, 8)[0] == 0
        clear = "mov %cr0,%rax; btr $31,%rax; mov %rax,%cr0"
        assert run(image64(clear, {x86.GP: gate64(CODE0, HANDLER)})).stack(2, 8)[1] == CODE + 8

    def test_clts_and_lmsw(self) -> None:
        ran = run(flat_image(f"mov $9,%eax; lmsw %ax; mov %cr0,%ebx; clts; mov %cr0,%ecx; {OUT}"))
        assert (ran.state.gprs[3], ran.state.gprs[1]) == (0x19, 0x11)

    def test_cr8_is_the_local_apic_s_task_priority(self) -> None:
        image = image64(f"mov $5,%eax; mov %rax,%cr8; mov %cr8,%r9; {OUT}", {})
        ran = run(image, lambda _vcpu, exit_: 0x60 if isinstance(exit_, MmioRead) else None)
        assert ran.exits[:2] == [MmioWrite(0xFEE00080, 4, 0x50), MmioRead(0xFEE00080, 4)]
        assert ran.state.gprs[9] == 6
        assert run(image64("mov $16,%eax; mov %rax,%cr8", {x86.GP: gate64(CODE0, HANDLER)})).stack(1, 8) == (0,)

    def test_debug_registers_4_and_5_are_6_and_7_unless_cr4_de(self) -> None:
        aliased = run(flat_image(f"mov $0x402,%eax; .byte 0x0f,0x23,0xe8; mov %dr7,%ebx; {OUT}"))
        assert aliased.state.gprs[3] == 0x402
        assert refused_with(f"mov $8,%eax; mov %eax,%cr4; .byte 0x0f,0x23,0xe8; {OUT}") == "#UD"

    def test_debug_registers_are_kept(self) -> None:
        code = f"mov $0x1000,%eax; mov %eax,%dr0; mov $1,%eax; mov %eax,%dr7; mov %dr7,%ebx; mov %dr0,%ecx; {OUT}"
        ran = run(flat_image(code))
        assert (ran.state.gprs[3], ran.state.gprs[1]) == (0x401, 0x1000)

    def test_a_guest_enters_long_mode_itself(self) -> None:
        image = image64(OUT, {})
        # From the same tables, but beginning in 32-bit mode with paging off.
        start = assemble(
            f"""mov %cr4,%eax; or $0x20,%eax; mov %eax,%cr4; mov $0x10000,%eax; mov %eax,%cr3
            mov $0xc0000080,%ecx; rdmsr; or $0x900,%eax; wrmsr; mov %cr0,%eax; or $0x80000000,%eax; mov %eax,%cr0
            ljmp ${CODE0},${CODE}""",
            32,
            0x8000,
        )
        image.ram.write(0x8000, start)
        entry = replace(FLAT_STATE, rip=0x8000, gdtr=image.entry.gdtr, cs=SegmentRegister(CODE0, 0, 0xFFFFFFFF, 0xC9B))
        ran = run(replace(image, entry=entry))
        assert ran.state.bits == 64
        assert ran.state.efer & (x86.EFER_LME | x86.EFER_LMA | x86.EFER_NX) == 0xD00


class TestKernelCalls:
    STAR = "mov $0xc0000081,%ecx; xor %eax,%eax; mov $0x00130008,%edx; wrmsr;"

    def test_syscall_and_sysret(self) -> None:
        setup = f"""{self.STAR} mov $0xc0000082,%ecx; mov ${HANDLER},%eax; xor %edx,%edx; wrmsr
            mov $0xc0000084,%ecx; mov $0x200,%eax; wrmsr
            mov $1f,%ecx; mov $0x3202,%r11; sysretq
            1: mov %cs,%ebx; sti; syscall; 2: {OUT}"""
        image = image64(setup, {})
        image.ram.write(HANDLER, b"\x89\xce\x8c\xcd\xe6\x80\x48\x0f\x07")  # mov %ecx,%esi; mov %cs,%ebp; out; sysretq
        image = replace(image, entry=replace(image.entry, rflags=0x3002))
        ran = run(image)
        assert ran.state.cpl == 3
        inside = ran.states[0]
        assert (inside.cpl, inside.bits, inside.cs.selector, inside.ss.selector) == (0, 64, CODE0, DATA0)
        assert not inside.rflags & x86.RFLAGS_IF
        assert inside.gprs[11] & x86.RFLAGS_IF
        # SYSRET to 64-bit code takes CS from STAR[63:48] + 16, SS from + 8 (AMD APM vol. 3)
        assert (ran.state.gprs[3], ran.state.cs.selector, ran.state.ss.selector) == (0x23, 0x23, 0x1B)

    def test_syscall_needs_efer_sce(self) -> None:
        image = image64("syscall", {x86.UD: gate64(CODE0, HANDLER)})
        image = replace(image, entry=replace(image.entry, efer=image.entry.efer & ~x86.EFER_SCE))
        assert run(image).stack(2, 8) == (CODE, CODE0)

    def test_sysenter_and_sysexit_in_legacy_mode(self) -> None:
        setup = f"""mov $0x174,%ecx; mov $8,%eax; xor %edx,%edx; wrmsr; inc %ecx; mov $0x80000,%eax; wrmsr
            inc %ecx; mov ${HANDLER},%eax; wrmsr; mov $1f,%edx; mov $0x70000,%ecx; sysexit
            1: mov %cs,%ebx; sysenter; 2: {OUT}"""
        image = image32(setup, {})
        image.ram.write(HANDLER, assemble("mov %esp,%esi; mov %cs,%edi; out %al,$0xf4", 32, HANDLER))
        image = replace(image, entry=replace(image.entry, rflags=0x3002))
        ran = run(image)
        assert (ran.state.gprs[6], ran.state.gprs[7], ran.state.gprs[3]) == (0x80000, 8, 0x1B)
        assert (ran.state.cpl, ran.state.ss.selector) == (0, 0x10)

    def test_syscall_in_legacy_mode_takes_the_target_from_star(self) -> None:
        setup = f"""mov $0xc0000081,%ecx; mov ${HANDLER},%eax; mov $0x00130008,%edx; wrmsr
            mov $0xc0000080,%ecx; mov $1,%eax; xor %edx,%edx; wrmsr; sti; 1: syscall"""
        image = image32(setup, {})
        ran = run(image)
        assert ran.state.rip in {HANDLER, HANDLER + 2}
        assert (ran.state.cs.selector, ran.state.ss.selector, ran.state.bits) == (8, 0x10, 32)
        assert ran.state.gprs[1] == CODE + len(assemble(setup))
        assert not ran.state.rflags & x86.RFLAGS_IF

    def test_sysenter_without_a_target_is_gp(self) -> None:
        assert refused_with("sysenter") == "#GP"

    def test_sysenter_in_long_mode_is_ud_as_on_amd(self) -> None:
        assert run(image64("sysenter", {x86.UD: gate64(CODE0, HANDLER)})).stack(2, 8) == (CODE, CODE0)


class TestHalt:
    def test_with_interrupts_off(self) -> None:
        assert run(flat_image("cli; hlt")).exits == [Halt(wakes=False)]

    def test_it_goes_on_behind_hlt_when_the_sink_returns(self) -> None:
        ran = run(flat_image(f"sti; hlt; mov $3,%al; {OUT}"))
        assert ran.exits == [Halt(wakes=True), PortOut(0xF4, 1, 3)]


class TestSelfModifyingCode:
    def test_code_that_changes_itself_runs_changed(self) -> None:
        code = f"""mov $2,%ecx; 1: mov $1,%eax; add %eax,%ebx; movb $5,1b+1; dec %ecx; jnz 1b; {OUT}"""
        assert run(flat_image(code)).state.gprs[3] == 6

    def test_the_host_s_changes_are_seen_after_written(self) -> None:
        image = flat_image(f"1: mov $1,%eax; out %al,$0x80; cmp $9,%eax; jne 1b; {OUT}")

        def answer(vcpu: EmulatorVcpu, _exit: Exit) -> int:
            image.ram.write(CODE + 1, b"\x09")
            vcpu.processor.code_changed()
            return 0

        assert run(image, answer).state.gprs[0] == 9
