"""The scripted engine: exits replayed, replies kept - alone, and under the whole machine."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from pvh.build.builder import build
from pvh.build.cpu_state import CpuState
from pvh.build.image import Image
from pvh.engines.engine import Engine, Vcpu, Vm
from pvh.engines.exits import Broken, Exit, Hypercall, MsrRead, MsrWrite, PortIn, PortOut, Shutdown
from pvh.engines.scripted import Reply, ScriptedEngine, Step
from pvh.kernel.read import read_kernel
from pvh.machine import Machine
from pvh.plan.options import BootOptions
from pvh.plan.planner import plan

HELLO = Path(__file__).parent.parent / "guests" / "hello.elf"


def image(vcpus: int = 1) -> Image:
    return build(plan(read_kernel(str(HELLO)), BootOptions(memory=16 << 20, vcpus=vcpus)))


def opened(*steps: Step, vcpus: int = 1) -> tuple[ScriptedEngine, Vm]:
    engine = ScriptedEngine(steps)
    return engine, engine.open(image(vcpus), (engine.cpuid(),) * vcpus)


def test_it_is_an_engine() -> None:
    engine: Engine = ScriptedEngine([])
    vm: Vm = engine.open(image(), (engine.cpuid(),))
    vcpu: Vcpu = vm.vcpus[0]
    assert (engine.name, vcpu.index, vcpu.recent(), vm.patched) == ("scripted", 0, (), ())


def test_exits_come_in_order_and_their_answers_are_kept() -> None:
    engine, vm = opened(PortOut(0xE9, 1, 65), PortIn(0x60, 1), MsrRead(1))
    answers: dict[type[Exit], int | None] = {PortIn: 7}
    vm.vcpus[0].run(lambda event: answers.get(type(event)))
    assert engine.vms[0].replies[:3] == [
        Reply(0, PortOut(0xE9, 1, 65), None),
        Reply(0, PortIn(0x60, 1), 7),
        Reply(0, MsrRead(1), None),
    ]


def test_a_script_that_just_ends_is_reported_not_hidden() -> None:
    engine, vm = opened()
    vm.vcpus[0].kick()
    vm.vcpus[0].run(lambda _: None)
    assert engine.vms[0].replies == [], "no script at all: it waits, as an AP does, and leaves when kicked"
    engine, vm = opened(PortOut(1, 1, 1))
    vm.vcpus[0].run(lambda _: None)
    assert isinstance(engine.vms[0].replies[-1].event, Broken)


def test_nothing_runs_after_a_shutdown() -> None:
    engine, vm = opened(Shutdown(), PortOut(1, 1, 1))
    vm.vcpus[0].run(lambda _: None)
    vm.vcpus[0].run(lambda _: None)
    assert [reply.event for reply in engine.vms[0].replies] == [Shutdown()]


def test_a_kick_stops_it_between_two_steps_and_none_is_lost() -> None:
    engine, vm = opened(PortOut(1, 1, 1), PortOut(2, 1, 2), Shutdown())
    vcpu = vm.vcpus[0]
    vcpu.kick()
    vcpu.run(lambda _: None)
    assert engine.vms[0].replies == []
    vcpu.run(lambda _: vcpu.kick())
    assert [reply.event for reply in engine.vms[0].replies] == [PortOut(1, 1, 1)]
    vcpu.run(lambda _: None)
    assert [reply.event for reply in engine.vms[0].replies][1:] == [PortOut(2, 1, 2), Shutdown()]


def test_registers_and_memory_can_be_scripted() -> None:
    state = CpuState(gprs=(9,) * 16, rip=0x1234)
    call = Hypercall(17, (6, 0, 0, 0, 0), 64, 0)
    engine, vm = opened(state, lambda ram: ram.write(0x5000, b"ring"), call, Shutdown())
    vm.vcpus[0].run(lambda event: -38 if event == call else None)
    assert vm.vcpus[0].state().rip == 0x1234
    assert vm.vcpus[0].state().gprs[:2] == (2**64 - 38, 9), "the answer is in RAX"
    assert engine.vms[0].ram.read(0x5000, 4) == b"ring"


def test_what_the_host_does_is_recorded() -> None:
    engine, vm = opened(Shutdown())
    vm.vcpus[0].raise_vector(0xF3)
    vm.written(0x5000, 4096)
    vm.close()
    assert engine.vms[0].vectors == [(0, 0xF3)]
    assert engine.vms[0].changed == [(0x5000, 4096)]
    assert engine.vms[0].closed
    assert vm.hypercall_stub(17)[:5] == b"\xb8\x11\0\0\0"
    before = vm.tsc()
    time.sleep(0.001)
    assert vm.tsc() - before >= engine.tsc_khz


def test_the_machine_runs_a_script_to_its_outcome() -> None:
    said = bytearray()
    engine = ScriptedEngine([*(PortOut(0xE9, 1, char) for char in b"hi\n"), PortOut(0xF4, 1, 3)])
    outcome = Machine(image(), engine, said.extend).run()
    assert (bytes(said), outcome.status, outcome.engine) == (b"hi\n", 3, "scripted")
    assert engine.vms[0].closed


def test_the_machine_gives_a_scripted_guest_its_hypercall_page() -> None:
    engine = ScriptedEngine([MsrWrite(0x40000000, 0x5000), MsrWrite(0x40000000, 0x5001), PortOut(0xF4, 1, 0)])
    Machine(image(), engine, lambda _: None).run()
    vm = engine.vms[0]
    assert [reply.answer for reply in vm.replies[:2]] == [0, None], "page 1 of it: #GP (xen, wrmsr_hypervisor_regs)"
    assert vm.changed == [(0x5000, 4096)]


def test_other_processors_have_scripts_of_their_own() -> None:
    done = threading.Event()
    engine = ScriptedEngine(
        {0: [lambda _: done.wait(5), PortOut(0xF4, 1, 0)], 1: [PortOut(0xE9, 1, 66), lambda _: done.set()]}
    )
    said = bytearray()
    outcome = Machine(image(2), engine, said.extend).run()
    assert (bytes(said), outcome.status) == (b"B", 0)
