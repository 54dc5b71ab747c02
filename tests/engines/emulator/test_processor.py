"""vCPUs that take turns on one processor: each keeps all of its state, and all see what one does to code."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engines.emulator.harness import CODE0, HANDLER, gate32, image32, long_world, opened
from engines.flat import CODE, FLAT_STATE, assemble, flat_image
from pvh.build.cpu_state import CpuState
from pvh.engines.emulator import native
from pvh.engines.emulator.vcpu import EmulatorVcpu
from pvh.engines.exits import Exit, Hypercall, PortOut

COUNTER = 0x300000

# Everything a program can set: general and segment state aside, FPU, SSE, MSRs. EBX makes the values each vCPU's own.
MSRS = "0x174, 0x175, 0x176, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000101, 0xc0000102, 0xc0000103, 0x277"
SET = f"""
    mov %cr4,%eax; or $0x600,%eax; mov %eax,%cr4
    movd %ebx,%xmm0; movd %ebx,%xmm7; movd %ebx,%mm3; push $0x1f80; orl $0x8000,(%esp); ldmxcsr (%esp); pop %eax
    .irp msr, {MSRS}
        mov $\\msr,%ecx; mov %ebx,%eax; and $0x0606,%eax; xor %edx,%edx; wrmsr
    .endr
    mov %ebx,%eax; mov %eax,%cr2; mov %eax,%dr1; mov %ebx,%ebp; add %ebx,%ebx; jmp 1f; 1: out %al,$0x80; jmp 1f; 1:
"""
READ = f"""
    mov $0x200000,%edi; add %ebp,%edi; mov %ebx,(%edi); pushf; pop 4(%edi); movd %xmm0,8(%edi); movd %xmm7,12(%edi)
    movd %mm3,16(%edi); stmxcsr 20(%edi); add $32,%edi; mov %cr2,%eax; stosl; mov %dr1,%eax; stosl; mov %cr4,%eax; stosl
    .irp msr, {MSRS}
        mov $\\msr,%ecx; rdmsr; stosl
    .endr
    out %al,$0xf4; hlt
"""


def test_each_keeps_its_own_state() -> None:
    values = (0x0402, 0x0604, 0x0406)
    image = flat_image(assemble(SET + READ), vcpus=3)
    alone: list[bytes] = []
    together: list[bytes] = []

    def states() -> list[CpuState]:
        return [
            replace(FLAT_STATE, gprs=(0, 0, 0, value, 0x90000 + 0x1000 * index, *(0,) * 11), rflags=2 | index << 10)
            for index, value in enumerate(values)
        ]

    def results() -> list[bytes]:
        found = [image.ram.read(0x200000 + value, 96) or b"" for value in values]
        image.ram.write(0x200000, bytes(0x1000))
        return found

    with opened(image) as vm:
        for vcpu, state in zip(vm.vcpus, states(), strict=True):
            vcpu.load(state)
            for _ in range(2):
                vcpu.run(lambda _exit, vcpu=vcpu: vcpu.kick())  # type: ignore[misc]
        alone = results()
        for vcpu, state in zip(vm.vcpus, states(), strict=True):
            vcpu.load(state)
        for _ in range(2):
            for vcpu in vm.vcpus:
                vcpu.run(lambda _exit, vcpu=vcpu: vcpu.kick())  # type: ignore[misc]
        together = results()
    assert together == alone
    assert len(set(alone)) == 3


def test_a_register_record_is_right_while_another_runs() -> None:
    image = flat_image("add $5,%eax; stc; out %al,$0x80; 1: jmp 1b", vcpus=2)
    with opened(image) as vm:
        first, second = vm.vcpus
        first.run(lambda _exit: first.kick())
        before = first.state()
        assert before.rflags & 1
        second.load(replace(FLAT_STATE, gprs=(7, *FLAT_STATE.gprs[1:])))
        assert first.state() == before
        assert second.state().gprs[0] == 7
        second.run(lambda _exit: second.kick())
        assert first.state() == before
        assert second.state().gprs[0] == 12
        assert first.recent()
        assert set(first.recent()) >= {CODE}


def test_locked_counts_of_two_in_turns_add_up() -> None:
    image = flat_image(f"mov $50000,%ecx; 1: lock incl {COUNTER}; dec %ecx; jnz 1b; out %al,$0xf4; hlt", vcpus=2)
    with opened(image) as vm:
        ended: set[int] = set()
        vm.vcpus[1].load(FLAT_STATE)
        turns = 0
        while len(ended) < 2:
            for vcpu in vm.vcpus:
                if vcpu.index not in ended:

                    def sink(_exit: Exit, index: int = vcpu.index) -> None:
                        ended.add(index)
                        vm.vcpus[index].kick()

                    vcpu.run(sink, 100)
                    turns += 1
        assert int.from_bytes(image.ram.read(COUNTER, 4) or b"", "little") == 100_000
    assert turns > 900


def test_code_that_one_changes_is_changed_for_the_other() -> None:
    """As a kernel patches itself: the other vCPU has executed, and so translated, the old code."""
    image = flat_image("1: mov $1,%eax; out %al,$0x80; jmp 1b; .org 0x100; movb $9,1b+1; out %al,$0x81; hlt", vcpus=2)
    seen: list[Exit] = []
    with opened(image) as vm:
        runner, patcher = vm.vcpus
        patcher.load(replace(FLAT_STATE, rip=CODE + 0x100))

        for vcpu in runner, runner, patcher, runner:

            def sink(exit_: Exit, vcpu: EmulatorVcpu = vcpu) -> None:
                seen.append(exit_)
                vcpu.kick()

            vcpu.run(sink)
    assert seen == [PortOut(0x80, 1, 1), PortOut(0x80, 1, 1), PortOut(0x81, 1, 0), PortOut(0x80, 1, 9)]


def test_the_same_address_is_each_one_s_own_page() -> None:
    """Two address spaces map different code at one linear address, as two user programs do."""
    ram, state = long_world({})
    for table, page in (0x500000, 0x600000), (0x510000, 0x601000):
        ram.write(table, ram.read(0x10000, 8) or b"")
        for level in range(1, 4):
            ram.write(table + 0x1000 * level, bytes(4096))
        ram.write(table + 8, (table + 0x1000 | 7).to_bytes(8, "little"))
        ram.write(table + 0x1000, (table + 0x2000 | 7).to_bytes(8, "little"))
        ram.write(table + 0x2000, (table + 0x3000 | 7).to_bytes(8, "little"))
        ram.write(table + 0x3000, (page | 7).to_bytes(8, "little"))
    image = flat_image("nop", state, ram=ram, vcpus=2)
    program = "1: mov ${0},%eax; out %al,$0x80; jmp 2f; 2: jmp 1b"
    ram.write(0x600000, assemble(program.format(0x11), 64))
    ram.write(0x601000, assemble(program.format(0x22), 64))
    values: list[list[int]] = [[], []]
    with opened(image) as vm:
        for vcpu, table in zip(vm.vcpus, (0x500000, 0x510000), strict=True):
            vcpu.load(replace(state, cr3=table, rip=1 << 39))
        for turn in range(20):
            vcpu = vm.vcpus[turn % 2]

            def sink(exit_: Exit, vcpu: EmulatorVcpu = vcpu) -> None:
                assert isinstance(exit_, PortOut)
                values[vcpu.index].append(exit_.value)
                if len(values[vcpu.index]) % 5 == 0:
                    vcpu.kick()

            vcpu.run(sink)
    assert values == [[0x11] * 50, [0x22] * 50]


def test_a_sink_may_start_another_vcpu_from_any_exit() -> None:
    for instruction in "vmcall", "out %al,$0x80", "mov 0xfee00300,%eax":
        image = flat_image(f"mov $3,%ebx; {instruction}; inc %ebx; out %al,$0x90; hlt", vcpus=2)
        image.ram.write(0x8000, assemble("mov $77,%ebx; out %al,$0x91; hlt", 32, 0x8000))
        with opened(image) as vm:
            first, second = vm.vcpus
            seen: list[Exit] = []

            for vcpu in first, second:

                def sink(exit_: Exit, vcpu: EmulatorVcpu = vcpu, other: EmulatorVcpu = second) -> None:
                    seen.append(exit_)  # noqa: B023
                    if len(seen) == 1:  # noqa: B023
                        other.load(replace(FLAT_STATE, rip=0x8000))
                    else:
                        vcpu.kick()

                vcpu.run(sink)
            assert [exit_.port for exit_ in seen[1:] if isinstance(exit_, PortOut)] == [0x90, 0x91], instruction
            assert (first.state().gprs[3], second.state().gprs[3]) == (4, 77)


def test_a_turn_is_about_as_long_as_asked() -> None:
    with opened(flat_image("1: inc %eax; jmp 1b")) as vm:
        vcpu = vm.vcpus[0]
        vcpu.run(lambda _exit: None, 1000)
        assert 900 <= vcpu.state().gprs[0] <= 1100 or not native.available()


def test_a_parked_vcpu_executes_nothing_and_goes_on_where_it_was() -> None:
    with opened(flat_image("1: inc %eax; out %al,$0x80; jmp 1b")) as vm:
        vcpu = vm.vcpus[0]
        vcpu.run(lambda _exit: vcpu.kick())
        vcpu.park()
        before = vcpu.state()
        vcpu.run(lambda _exit: pytest.fail("it runs"))
        assert vcpu.state() == before
        vcpu.resume()
        vcpu.run(lambda _exit: vcpu.kick())
        assert vcpu.state().gprs[0] == before.gprs[0] + 1


class TestNmi:
    def test_it_comes_with_interrupts_off_and_waits_for_the_handler_s_iret(self) -> None:
        image = image32("cli; vmcall; nop; out %al,$0x90; 1: jmp 1b", {2: gate32(CODE0, HANDLER)})
        image.ram.write(HANDLER, assemble("out %al,$0x92; vmcall; jmp 1f; 1: out %al,$0x93; iret", 32, HANDLER))
        ports: list[int] = []
        with opened(image) as vm:
            vcpu = vm.vcpus[0]

            def sink(exit_: Exit) -> int:
                if isinstance(exit_, Hypercall) and len(ports) < 3:
                    vcpu.nmi()
                if isinstance(exit_, PortOut):
                    ports.append(exit_.port)
                    if exit_.port == 0x90:
                        vcpu.kick()
                return 0

            vcpu.run(sink)
        # The NMI raised in the handler comes behind its IRET, not inside it.
        assert ports == [0x92, 0x93, 0x92, 0x93, 0x90]
