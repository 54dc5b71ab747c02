"""Running, stopping, interrupting, loading: what engines/engine.py promises of a vCPU."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from engines.emulator.harness import (
    CODE0,
    HANDLER,
    engine,
    gate32,
    gate64,
    image32,
    image64,
    opened,
    run,
)
from engines.flat import CODE, FLAT_STATE, MEMORY, REAL_STATE, assemble, flat_image, long_state
from pvh.abi import x86
from pvh.build.cpu_state import CpuState, SegmentRegister, TableRegister
from pvh.build.ram import GuestRam
from pvh.engines.emulator import native
from pvh.engines.engine import Engine, Vcpu, Vm
from pvh.engines.exits import Exit, Halt, PortIn, PortOut

OUT = "out %al, $0xf4"
COUNTERS = 0x300000


@pytest.fixture(params=["native", "counted"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of stopping: the block hook, and runs of counted instructions where no hook can be had."""
    if request.param == "counted":
        monkeypatch.setattr(native, "available", lambda: False)
    return str(request.param)


def test_the_engine_is_what_the_protocols_say() -> None:
    image = flat_image("hlt")
    with opened(image) as vm:
        made: tuple[Engine, Vm, Vcpu] = (engine(), vm, vm.vcpus[0])
        assert made[0].name == "emulator"
        assert made[1].patched == ()
        assert made[2].index == 0


@pytest.mark.parametrize("kind", ["protected", "real", "long", "odd"])
def test_the_state_loaded_is_the_state_read_back(kind: str) -> None:
    ram = GuestRam(((0, MEMORY),))
    states: dict[str, CpuState] = {
        "protected": FLAT_STATE,
        "real": REAL_STATE,
        "long": long_state(ram),
        "odd": replace(
            FLAT_STATE,
            gprs=tuple(0x1111111111111111 * index for index in range(16)),
            rflags=0x202 | x86.RFLAGS_CF | x86.RFLAGS_DF | x86.RFLAGS_ID | x86.RFLAGS_AC,
            cs=SegmentRegister(0x1230, 0x1000, 0xFFFFF, 0xC9B),
            ss=SegmentRegister(0x4563, 0x2000, 0x12345, 0x0F7),
            fs=SegmentRegister(0x77, 0x123456789ABC, 0x1234, 0xCF3),
            tr=SegmentRegister(0x40, 0x5000, 0x2067, 0x8B),
            ldtr=SegmentRegister(0x48, 0x6000, 0x1F, 0x82),
            gdtr=TableRegister(0x7000, 0x7F),
            idtr=TableRegister(0x8000, 0x7FF),
            cr2=0x1234,
            cr4=x86.CR4_PAE | x86.CR4_DE,
            dr0=0x1234,
            dr1=0xFFFFFFFF,
            dr2=1,
            dr3=1 << 40,
            dr6=0xFFFF0FF1,
            mtrr_def_type=0xC06,
        ),
    }
    image = flat_image("nop", replace(states[kind], rip=CODE), ram=ram)
    with opened(image) as vm:
        assert vm.vcpus[0].state() == image.entry


def test_breakpoints_that_are_not_armed_are_there_and_stop_nothing() -> None:
    code = f"mov %dr0,%eax; mov %dr3,%ebx; {OUT}"
    entry = replace(FLAT_STATE, rip=CODE, dr0=CODE, dr1=CODE + 3, dr2=CODE + 6, dr3=0xDEAD)
    with opened(flat_image(code, entry)) as vm:
        vcpu = vm.vcpus[0]
        vcpu.run(lambda _exit: None)
        found = vcpu.state()
        assert (found.gprs[0], found.gprs[3]) == (CODE, 0xDEAD)
        vcpu.load(replace(FLAT_STATE, rip=CODE))
        assert vcpu.state().debug_registers == (0, 0, 0, 0, 0xFFFF0FF0, 0x400)


def test_a_kick_that_comes_first_is_not_lost(way: str) -> None:
    with opened(flat_image("1: jmp 1b")) as vm:
        vcpu = vm.vcpus[0]
        for _ in range(3):
            vcpu.kick()
            vcpu.run(lambda _exit: None)
            assert vcpu.state().rip == CODE, way


def test_stops_come_between_two_instructions(way: str) -> None:
    """200 kicks from another thread into locked and plain read-modify-writes: no count is lost or doubled."""
    code = f"""mov ${COUNTERS},%ebx
        1: lock incl (%ebx); incl 4(%ebx); lock incl 8(%ebx); inc %ecx; movl %ecx,12(%ebx); jmp 1b"""
    image = flat_image(code)
    a = 0
    with opened(image) as vm:
        vcpu = vm.vcpus[0]
        for _ in range(200):
            timer = threading.Timer(0.0005, vcpu.kick)
            timer.start()
            vcpu.run(lambda _exit: None)
            timer.join()
            state = vcpu.state()
            a, b, c, d = (
                int.from_bytes(image.ram.read(COUNTERS + 4 * index, 4) or b"", "little") for index in range(4)
            )
            places = (CODE + 5, CODE + 8, CODE + 11, CODE + 15, CODE + 16, CODE + 19)
            done = places.index(state.rip) if state.rip != CODE else 0
            ecx = state.gprs[1] & 0xFFFFFFFF
            base = d if done < 5 else d - 1
            assert (a - base, b - base, c - base, ecx - base, d - base) == (
                done >= 1, done >= 2, done >= 3, done >= 4, done >= 5,
            ), way  # fmt: skip
        assert a > 1000


def test_kicked_from_its_sink_it_does_not_execute_the_next_halt(way: str) -> None:
    exits: list[Exit] = []
    with opened(flat_image("out %al,$0x80; hlt; out %al,$0x81; hlt")) as vm:
        vcpu = vm.vcpus[0]

        def sink(exit_: Exit) -> None:
            exits.append(exit_)
            vcpu.kick()

        for _ in range(4):
            vcpu.run(sink)
    assert exits == [PortOut(0x80, 1, 0), Halt(False), PortOut(0x81, 1, 0), Halt(False)], way  # noqa: FBT003


def test_kicked_from_its_sink_it_stops_right_behind_the_port_access() -> None:
    code = "mov $0x11223344,%eax; out %ax,$0x80; in $0x81,%ax; in (%dx),%al; out %eax,$0x82; hlt"
    exits: list[Exit] = []
    with opened(flat_image(code)) as vm:
        vcpu = vm.vcpus[0]

        def sink(exit_: Exit) -> int:
            exits.append(exit_)
            vcpu.kick()
            return 0xAAAABBCC

        ends = []
        for _ in range(4):
            vcpu.run(sink)
            ends.append((vcpu.state().rip - CODE, vcpu.state().gprs[0], vcpu.state().gprs[1]))
    assert ends == [(8, 0x11223344, 0), (11, 0x1122BBCC, 0), (12, 0x1122BBCC, 0), (14, 0x1122BBCC, 0)]
    assert [exit_.port for exit_ in exits if isinstance(exit_, PortIn | PortOut)] == [0x80, 0x81, 0, 0x82]


def test_kicked_in_a_string_form_it_finishes_each_step_once() -> None:
    exits: list[Exit] = []
    with opened(flat_image(f"mov ${COUNTERS},%esi; mov $5,%ecx; mov $0xe9,%dx; rep outsb; out %al,$0xf4")) as vm:
        vcpu = vm.vcpus[0]

        def sink(exit_: Exit) -> None:
            exits.append(exit_)
            vcpu.kick()

        while PortOut(0xF4, 1, 0) not in exits:
            vcpu.run(sink)
        assert exits == [PortOut(0xE9, 1, 0)] * 5 + [PortOut(0xF4, 1, 0)]


def test_an_exception_of_the_sink_comes_out_of_run() -> None:
    for code in "out %al,$0x80; 1: jmp 1b", "hlt", "mov 0xfee00000,%eax; 1: jmp 1b", "vmcall":
        with opened(flat_image(code)) as vm, pytest.raises(ZeroDivisionError):
            vm.vcpus[0].run(lambda _exit: 1 // 0)


def test_the_last_blocks_are_named() -> None:
    ran = run(flat_image(f"jmp 1f; .org 0x20; 1: jmp 2f; .org 0x40; 2: {OUT}; hlt"))
    assert ran.recent[-3:] == (CODE, CODE + 0x20, CODE + 0x40)


class TestInterrupts:
    def ticking(
        self, code: str, vectors: tuple[int, ...] = (0x40,), last: int = 0xF4
    ) -> tuple[list[Exit], list[CpuState]]:
        """Run 32-bit code with handlers that write their vector to port 0x90; port 0x91 raises the vectors."""
        image = image32(code, {vector: gate32(CODE0, HANDLER + vector * 16) for vector in (0x40, 0x50, 0x60)})
        for vector in 0x40, 0x50, 0x60:
            image.ram.write(HANDLER + vector * 16, bytes((0x50, 0xB0, vector, 0xE6, 0x90, 0x58, 0xCF)))
        exits: list[Exit] = []
        states: list[CpuState] = []
        with opened(image) as vm:
            vcpu = vm.vcpus[0]

            def sink(exit_: Exit) -> None:
                exits.append(exit_)
                states.append(vcpu.state())
                if isinstance(exit_, PortOut) and exit_.port == 0x91:
                    for vector in vectors:
                        vcpu.raise_vector(vector)
                if isinstance(exit_, PortOut) and exit_.port == last:
                    vcpu.kick()

            deadline = threading.Timer(10, vcpu.kick)
            deadline.start()
            vcpu.run(sink)
            deadline.cancel()
        return exits, states

    def test_at_once_when_enabled(self) -> None:
        exits, states = self.ticking(f"sti; nop; out %al,$0x91; jmp 1f; 1: jmp 1f; 1: {OUT}")
        assert exits[:2] == [PortOut(0x91, 1, 0), PortOut(0x90, 1, 0x40)]
        assert not states[1].rflags & x86.RFLAGS_IF

    def test_in_the_order_of_their_priority(self) -> None:
        exits, _ = self.ticking(f"sti; nop; out %al,$0x91; jmp 1f; 1: {OUT}", (0x40, 0x60, 0x50))
        assert [exit_.value for exit_ in exits if isinstance(exit_, PortOut) and exit_.port == 0x90] == [
            0x60,
            0x50,
            0x40,
        ]

    def test_held_until_sti_and_the_instruction_behind_it(self) -> None:
        code = f"cli; out %al,$0x91; mov $200,%ecx; 1: loop 1b; out %al,$0x92; sti; out %al,$0x93; out %al,$0x94; {OUT}"
        exits, _ = self.ticking(code)
        ports = [exit_.port for exit_ in exits if isinstance(exit_, PortOut)]
        assert ports == [0x91, 0x92, 0x93, 0x90, 0x94, 0xF4]

    def test_held_behind_a_load_of_ss(self) -> None:
        code = f"sti; nop; mov %ss,%eax; out %al,$0x91; mov %eax,%ss; out %al,$0x93; out %al,$0x94; {OUT}"
        exits, _ = self.ticking(code)
        ports = [exit_.port for exit_ in exits if isinstance(exit_, PortOut)]
        assert ports.index(0x90) > ports.index(0x93)

    def test_popf_opens_the_window(self) -> None:
        code = f"cli; out %al,$0x91; jmp 1f; 1: pushf; orl $0x200,(%esp); popf; out %al,$0x94; {OUT}"
        exits, _ = self.ticking(code)
        assert [exit_.port for exit_ in exits if isinstance(exit_, PortOut)] == [0x91, 0x90, 0x94, 0xF4]

    def test_a_pending_one_ends_hlt_without_asking_the_sink(self) -> None:
        exits, _ = self.ticking(f"cli; out %al,$0x91; sti; hlt; {OUT}")
        assert [type(exit_) for exit_ in exits] == [PortOut, PortOut, PortOut]
        assert exits[1] == PortOut(0x90, 1, 0x40)

    def test_it_comes_to_a_loop_that_waits_for_it(self, way: str) -> None:
        exits, _ = self.ticking(f"sti; out %al,$0x91; 1: testb $1,{COUNTERS}; jz 1b; {OUT}", last=0x90)
        assert exits == [PortOut(0x91, 1, 0), PortOut(0x90, 1, 0x40)], way

    def test_raised_while_halted(self) -> None:
        image = image32(f"sti; hlt; {OUT}", {0x40: gate32(CODE0, HANDLER)})
        image.ram.write(HANDLER, b"\xb0\x40\xe6\x90\xcf")
        ran = run(image, lambda vcpu, exit_: vcpu.raise_vector(0x40) if isinstance(exit_, Halt) else None)
        assert ran.exits == [Halt(wakes=True), PortOut(0x90, 1, 0x40), PortOut(0xF4, 1, 0x40)]

    def test_into_a_64_bit_program(self) -> None:
        image = image64("sti; nop; 1: jmp 1b", {0x40: gate64(CODE0, HANDLER)}, cpl=3)
        with opened(image) as vm:
            vcpu = vm.vcpus[0]
            vcpu.raise_vector(0x40)
            seen: list[CpuState] = []

            def sink(_exit: Exit) -> None:
                seen.append(vcpu.state())
                vcpu.kick()

            vcpu.run(sink)
            assert seen[0].cpl == 0
            assert seen[0].cs.selector == CODE0

    def test_thousands_of_interrupts_lose_no_instruction(self) -> None:
        image = image32(
            f"sti; 1: inc %ebx; lock incl {COUNTERS}; in $0x80,%al; test %al,%al; jz 1b; {OUT}",
            {0x40: gate32(CODE0, HANDLER)},
        )
        image.ram.write(HANDLER, assemble(f"incl {COUNTERS + 4}; iret", 32, HANDLER))
        reads = 0

        def answer(vcpu, exit_: Exit) -> int:  # type: ignore[no-untyped-def]  # noqa: ANN001
            nonlocal reads
            if isinstance(exit_, PortIn):
                reads += 1
                vcpu.raise_vector(0x40)
            return reads >= 2000

        ran = run(image, answer)
        count = int.from_bytes(ran.memory[COUNTERS : COUNTERS + 4], "little")
        ticks = int.from_bytes(ran.memory[COUNTERS + 4 : COUNTERS + 8], "little")
        assert count == ran.state.gprs[3] == 2000
        assert ticks in {1999, 2000}


def test_loading_again_starts_afresh() -> None:
    image = flat_image(f"mov $0x10,%ecx; fld1; mov $0x1fa0,%eax; push %eax; {OUT}")
    with opened(image) as vm:
        vcpu = vm.vcpus[0]
        for _ in range(3):
            vcpu.run(lambda _exit: vcpu.kick())
            assert vcpu.state().gprs[1] == 0x10
            vcpu.load(image.entry)
            assert vcpu.state() == image.entry


def test_a_sink_may_load_its_own_vcpu() -> None:
    image = flat_image(f"vmcall; nop; {OUT}")
    image.ram.write(0x8000, b"\xb0\x55\xe6\xf4")
    loaded = replace(FLAT_STATE, rip=0x8000)
    ran = run(image, lambda vcpu, _exit: vcpu.load(loaded))
    assert ran.exits[-1] == PortOut(0xF4, 1, 0x55)
    assert ran.states[-1].gprs[4] == FLAT_STATE.gprs[4]


def test_other_vcpus_stay_in_reset() -> None:
    image = flat_image(OUT, vcpus=4)
    with opened(image) as vm:
        assert [vcpu.index for vcpu in vm.vcpus] == [0, 1, 2, 3]
        assert vm.vcpus[3].state() == CpuState()
        vm.vcpus[2].run(lambda _exit: None)
        vm.vcpus[2].load(FLAT_STATE)
        vm.vcpus[2].run(lambda _exit: vm.vcpus[2].kick())
        assert vm.vcpus[2].state().rip > CODE
