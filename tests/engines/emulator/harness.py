"""What the emulator's tests share: running a guest to its end with a record of its exits, and descriptor tables."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache

from engines.flat import CODE, FLAT_STATE, MEMORY, assemble, flat_image, long_state
from pvh.abi import x86
from pvh.build.cpu_state import CpuState, SegmentRegister, TableRegister
from pvh.build.image import Image
from pvh.build.ram import GuestRam
from pvh.engines.emulator.engine import EmulatorEngine
from pvh.engines.emulator.vcpu import EmulatorVcpu
from pvh.engines.emulator.vm import EmulatorVm
from pvh.engines.exits import Broken, Exit, Halt, PortOut, Shutdown

DONE = 0xF4
Answer = Callable[[EmulatorVcpu, Exit], int | None]


@cache
def engine() -> EmulatorEngine:
    """Return one engine for all tests."""
    return EmulatorEngine()


@contextmanager
def opened(image: Image) -> Generator[EmulatorVm]:
    """Give an image to the engine, and both back at the end."""
    vm = engine().open(image, (engine().cpuid(),) * image.plan.options.vcpus)
    try:
        yield vm
    finally:
        vm.close()
        image.ram.close()


@dataclass(slots=True)
class Ran:
    """A run: its exits, the state at the last one, and memory as it was then."""

    exits: list[Exit] = field(default_factory=list)
    states: list[CpuState] = field(default_factory=list)
    memory: bytes = b""
    recent: tuple[int, ...] = ()

    @property
    def state(self) -> CpuState:
        """Registers at the last exit."""
        return self.states[-1]

    def of(self, kind: type[Exit]) -> list[Exit]:
        """Exits of one kind."""
        return [exit_ for exit_ in self.exits if isinstance(exit_, kind)]

    def stack(self, count: int, size: int) -> tuple[int, ...]:
        """Return values from the top of the stack (base SS, identity mapped)."""
        at = self.state.gprs[4] & (0xFFFF if self.state.bits == 16 else 2**64 - 1)
        at += self.state.ss.base if self.state.bits != 64 else 0
        return struct.unpack_from(f"<{count}{ {2: 'H', 4: 'I', 8: 'Q'}[size] }", self.memory, at)


def run(image: Image, answer: Answer = lambda _vcpu, _exit: 0, *, seconds: float = 20) -> Ran:
    """Run vCPU 0 until it writes port 0xf4, halts for good or shuts down."""
    ran = Ran()
    with opened(image) as vm:
        vcpu = vm.vcpus[0]

        def over() -> bool:
            last = ran.exits[-1] if ran.exits else None
            if isinstance(last, PortOut):
                return last.port == DONE
            return isinstance(last, (Shutdown, Broken)) or (isinstance(last, Halt) and not last.wakes)

        def sink(exit_: Exit) -> int | None:
            if over():
                return None  # the rest of the block in which the guest said that it is done
            ran.exits.append(exit_)
            ran.states.append(vcpu.state())
            if over():
                vcpu.kick()
                return None
            return answer(vcpu, exit_)

        late = threading.Event()

        def give_up() -> None:
            late.set()
            vcpu.kick()

        timer = threading.Timer(seconds, give_up)
        timer.start()
        try:
            vcpu.run(sink)
        finally:
            timer.cancel()
        assert not late.is_set(), f"the guest still runs at {vcpu.state().rip:#x}"
        ran.memory = bytes(image.ram.blocks[0].view)
        ran.recent = vcpu.recent()
    return ran


GDT, IDT, TSS, LDT = 0x1000, 0x2000, 0x3000, 0x4000
HANDLER = 0x200000
STACK0, STACK3, IST = 0xA0000, 0xB0000, 0xC0000

CODE0, DATA0, CODE3, DATA3, TSS_SELECTOR = 0x08, 0x10, 0x1B, 0x23, 0x28


def descriptor(base: int, limit: int, attributes: int) -> int:
    """Pack a descriptor; limit in units of the granularity bit in attributes."""
    low = (base & 0xFFFF) << 16 | limit & 0xFFFF
    high = (
        base >> 16 & 0xFF | (attributes & 0xFF) << 8 | limit & 0xF0000 | (attributes & 0xF00) << 12 | base & 0xFF000000
    )
    return high << 32 | low


def gate32(selector: int, offset: int, kind: int = 0xE, dpl: int = 0, *, present: bool = True) -> bytes:
    """Pack a legacy gate."""
    access = kind | dpl << 5 | present << 7
    return struct.pack("<HHBBH", offset & 0xFFFF, selector, 0, access, offset >> 16)


def gate64(selector: int, offset: int, kind: int = 0xE, dpl: int = 0, *, ist: int = 0, present: bool = True) -> bytes:
    """Pack a 64-bit gate."""
    access = kind | dpl << 5 | present << 7
    return struct.pack("<HHBBHII", offset & 0xFFFF, selector, ist, access, offset >> 16 & 0xFFFF, offset >> 32, 0)


def protected_world(gates: dict[int, bytes], *, cpl: int = 0, bits: int = 32) -> tuple[GuestRam, CpuState]:
    """Return RAM with GDT, IDT and TSS, and a 32-bit state (no paging) at a privilege level that uses them."""
    ram = GuestRam(((0, MEMORY),))
    write_tables(ram, long=False, gates=gates)
    tss = bytearray(0x68)
    struct.pack_into("<II", tss, 4, STACK0, DATA0)
    struct.pack_into("<H", tss, 0x66, 0x68)
    ram.write(TSS, bytes(tss))
    state = replace(FLAT_STATE, gdtr=TableRegister(GDT, 0x37), idtr=TableRegister(IDT, 0x7FF))
    state = replace(state, tr=SegmentRegister(TSS_SELECTOR, TSS, 0x67, 0x8B))
    return ram, at_privilege(state, cpl, bits)


def long_world(gates: dict[int, bytes], *, cpl: int = 0) -> tuple[GuestRam, CpuState]:
    """Return RAM with tables and page tables, and a 64-bit state at a privilege level."""
    ram = GuestRam(((0, MEMORY),))
    state = long_state(ram)
    write_tables(ram, long=True, gates=gates)
    tss = bytearray(0x68)
    struct.pack_into("<Q", tss, 4, STACK0)
    struct.pack_into("<Q", tss, 0x24, IST)
    ram.write(TSS, bytes(tss))
    state = replace(state, gdtr=TableRegister(GDT, 0x37), idtr=TableRegister(IDT, 0xFFF))
    state = replace(state, tr=SegmentRegister(TSS_SELECTOR, TSS, 0x67, 0x8B))
    return ram, at_privilege(state, cpl, 64)


def write_tables(ram: GuestRam, *, long: bool, gates: dict[int, bytes]) -> None:
    """Fill GDT and IDT, and put `out %al, $DONE` at the handler's address."""
    code = 0xA9A if long else 0xC9A
    entries = (
        0,
        descriptor(0, 0xFFFFF, code),
        descriptor(0, 0xFFFFF, 0xC92),
        descriptor(0, 0xFFFFF, code | 0x60),
        descriptor(0, 0xFFFFF, 0xCF2),
        descriptor(TSS, 0x67, 0x89),
        0,
    )
    ram.write(GDT, struct.pack("<7Q", *entries))
    for vector, gate in gates.items():
        ram.write(IDT + vector * len(gate), gate)
    ram.write(HANDLER, b"\xe6\xf4\xf4")


def at_privilege(state: CpuState, cpl: int, bits: int) -> CpuState:
    """Return a state with flat segments of a privilege level; IOPL lets it use ports."""
    width = {64: 0xA00, 32: 0xC00, 16: 0x800}[bits]
    code = SegmentRegister(CODE3 if cpl else CODE0, 0, 0xFFFFFFFF, width | 0x9B | cpl << 5)
    data = SegmentRegister(DATA3 if cpl else DATA0, 0, 0xFFFFFFFF, 0xC93 | cpl << 5)
    gprs = (*state.gprs[:4], STACK3 if cpl else STACK0 - 0x800, *state.gprs[5:])
    flags = x86.RFLAGS_ONE | cpl << 12
    return replace(state, gprs=gprs, rflags=flags, cs=code, ss=data, ds=data, es=data, fs=data, gs=data)


def image32(code: str, gates: dict[int, bytes], *, cpl: int = 0) -> Image:
    """Return an image of 32-bit code with tables."""
    ram, state = protected_world(gates, cpl=cpl)
    return flat_image(code, state, ram=ram)


def image64(code: str, gates: dict[int, bytes], *, cpl: int = 0) -> Image:
    """Return an image of 64-bit code with tables."""

    ram, state = long_world(gates, cpl=cpl)
    return flat_image(assemble(code, 64, CODE), state, ram=ram)
