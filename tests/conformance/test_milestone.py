"""What tells that a kernel booted: numbers of instructions to the last one, ends with the status a guest gives."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from conformance.relies import ENTRY, written
from pvh.build.cpu_state import CpuState
from pvh.build.ram import GuestRam
from pvh.cli import main
from pvh.conformance.boot import Boot, Limits, boot
from pvh.conformance.checker import Task, trial
from pvh.conformance.milestone import Milestone, Progress, parse
from pvh.engines.engine import Engine
from pvh.engines.select import choose
from pvh.errors import UsageError
from pvh.kernel.read import read_kernel
from pvh.plan.options import BootOptions

GUESTS = Path(__file__).resolve().parent.parent / "guests"
_WELL = "b000 e6f4"  # mov $0, %al; out %al, $0xf4


@pytest.fixture(scope="module")
def engine() -> Engine:
    return choose("emulator", print)


def faulting() -> bytes:
    """LGDT, LIDT, MOV to ESP, UD2, whose handler ends well: five instructions are executed."""
    code = bytearray(0x200)
    gdtr, idtr, gdt, idt, handler = (ENTRY + at for at in (0x80, 0x90, 0x60, 0x100, 0x40))
    begins = b"\x0f\x01\x15" + struct.pack("<I", gdtr) + b"\x0f\x01\x1d" + struct.pack("<I", idtr)
    begins += b"\xbc" + struct.pack("<I", ENTRY + 0x1800) + b"\x0f\x0b"
    code[: len(begins)] = begins
    code[0x40:0x44] = bytes.fromhex(_WELL)
    code[0x68:0x70] = struct.pack("<Q", 0x00CF9A000000FFFF)  # flat 32-bit code
    code[0x80:0x86], code[0x90:0x96] = struct.pack("<HI", 15, gdt), struct.pack("<HI", 55, idt)
    code[0x130:0x138] = struct.pack("<HHHH", handler & 0xFFFF, 8, 0x8E00, handler >> 16)
    return bytes(code)


# Machine code, and how many instructions a processor retires of it.
COUNTED = {
    "the exit alone": (bytes.fromhex(_WELL), 2),
    # mov $1000, %ecx; 1: dec %ecx; jnz 1b
    "a loop": (bytes.fromhex(f"b9e8030000 49 75fd {_WELL}"), 1 + 2000 + 2),
    # mov $1000, %ecx; 1: loop 1b
    "a jump to itself": (bytes.fromhex(f"b9e8030000 e2fe {_WELL}"), 1 + 1000 + 2),
    # mov $1000, %ecx; mov $0x201000, %edi; cld; rep stosb
    "a repeated one": (bytes.fromhex(f"b9e8030000 bf00102000 fc f3aa {_WELL}"), 4 + 2),
    # cpuid; mov $'!', %al; out %al, $0xe9; out %al, $0xe9
    "stops of the engine": (bytes.fromhex(f"0fa2 b021 e6e9 e6e9 {_WELL}"), 4 + 2),
    "a fault": (faulting(), 5),
}


def handler(ram: GuestRam, state: CpuState) -> int:
    """Return where the IDT has every exception go."""
    gate = ram.read(state.idtr.base + 13 * 8, 8) or b""
    return int.from_bytes(gate[:2] + gate[6:], "little")


def tried(engine: Engine, path: str, *until: str) -> Boot:
    way = tuple(parse(text) for text in until)
    return boot(read_kernel(path), BootOptions(), engine, way, Limits(20.0))


@pytest.mark.parametrize("name", COUNTED)
def test_instructions_are_counted_to_the_last_one(engine: Engine, tmp_path: Path, name: str) -> None:
    code, count = COUNTED[name]
    kernel = written(tmp_path, "counted.elf", code)
    assert tried(engine, kernel, f"instructions:{count - 1}").reached
    assert tried(engine, kernel, f"instructions:{count}").reached
    assert tried(engine, kernel, f"instructions:{count + 1}").missing == f"it executed {count + 1} instructions"


def test_a_real_guest_executes_as_many_as_it_can_be_stepped(engine: Engine) -> None:
    """A step is an instruction, or a round of one, or a fault. This one enters long mode, and faults."""
    from pvh.build.builder import build
    from pvh.engines.exits import Exit, PortOut
    from pvh.machine import Machine
    from pvh.plan.planner import plan

    path = str(GUESTS / "entry64.elf")
    image = build(plan(read_kernel(path), BootOptions()))
    ended: list[Exit] = []

    def watch(_vcpu: int, event: Exit, _answer: int | None) -> None:
        if isinstance(event, PortOut) and event.port == 0xF4:
            ended.append(event)

    machine = Machine(image, engine, lambda _data: None, watch)
    steps = faults = 0
    vcpu = machine.vm.vcpus[0]
    while not ended:
        before = vcpu.state().rip
        machine.step(0)
        steps += vcpu.state().rip != before
        faults += vcpu.state().rip == handler(image.ram, vcpu.state())
    machine.vm.close()
    image.ram.close()
    assert (steps > 1000, faults) == (True, 1)
    assert tried(engine, path, f"instructions:{steps - faults}").reached
    assert not tried(engine, path, f"instructions:{steps - faults + 1}").reached


def test_a_number_behind_another_milestone_may_have_been_executed_before(engine: Engine) -> None:
    assert tried(engine, str(GUESTS / "hello.elf"), "console:PVH", "instructions:5", "ends:exit-port").reached
    progress = Progress((Milestone("console", "a"), Milestone("instructions", "5")))
    progress.counted(7)
    assert progress.next == Milestone("console", "a")
    progress.said(b"a")
    assert progress.next is None


def test_a_status_of_failure_is_another_end(engine: Engine, tmp_path: Path) -> None:
    kernel = written(tmp_path, "fails.elf", bytes.fromhex("b021 e6e9 b003 e6f4"))
    assert not tried(engine, kernel, "ends:exit-port").reached
    assert not tried(engine, kernel, "ends:exit-port=4").reached
    assert tried(engine, kernel, "ends:exit-port=3").reached
    assert parse("ends:exit-port=0") == parse("ends:exit-port")


def test_a_kernel_that_fails_has_not_booted_whatever_it_says(engine: Engine, tmp_path: Path) -> None:
    kernel = written(tmp_path, "fails.elf", bytes.fromhex("b021 e6e9 b003 e6f4"))
    _task, first = trial(Task(read_kernel(kernel), BootOptions(), (), Limits(20.0)), engine)
    assert (first.reached, first.ending, first.status) == (False, "exit-port", 3)


@pytest.mark.parametrize("until", ["instructions:5", "long-mode"])
def test_what_kvm_does_not_tell_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], engine: Engine, until: str
) -> None:
    monkeypatch.setattr(engine, "name", "kvm", raising=False)

    def chosen(_name: str, _say: object) -> Engine:
        return engine

    monkeypatch.setattr("pvh.engines.select.choose", chosen)
    assert main(["check", "--engine", "kvm", "--until", until, str(GUESTS / "hello.elf")]) == 2
    assert "only the emulator tells" in capsys.readouterr().err


def test_who_counts_must_be_able_to() -> None:
    from pvh.engines.scripted import ScriptedEngine

    with pytest.raises(UsageError, match="only the emulator counts"):
        tried(ScriptedEngine(()), str(GUESTS / "hello.elf"), "instructions:5")
