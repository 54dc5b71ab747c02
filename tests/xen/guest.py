"""A guest without an engine: tiny RAM, page tables written by hand, a host that only takes notes."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from build.plans import kernel
from pvh.abi.hypercall import DOMID_SELF, HVM_OP
from pvh.build.cpu_state import CpuState, SegmentRegister
from pvh.build.image import Image
from pvh.build.ram import GuestRam
from pvh.engines.engine import Awaits, CpuidEntry, CpuidTable
from pvh.engines.exits import Hypercall
from pvh.plan.options import BootOptions
from pvh.plan.record import MemoryMapEntry, Plan, StartInfo
from pvh.xen.dispatch import hypercall
from pvh.xen.domain import Domain

RAM = 1 << 20  # bytes, from 0; nothing is mapped or backed behind it
SPECIAL = 0xFEFF8000
CONSOLE = 0xFEFFF000
MEMORY_MAP = (MemoryMapEntry(0, RAM, 1), MemoryMapEntry(0xFC000000, 0x2000, 4), MemoryMapEntry(SPECIAL, 0x8000, 2))

ARG = 0x8000  # where argument structures go
BUFFER = 0x9000  # where they point to
SPARE = 0xA000  # a page nothing uses
READ_ONLY = 0xC000  # a page that 64-bit callers cannot write
TABLES = 0x10000

FLAT_32 = CpuState(cr0=0x11, cs=SegmentRegister(8, 0, 0xFFFFFFFF, 0xC9B))
LONG_64 = CpuState(cr0=0x80010011, cr3=TABLES, cr4=1 << 5, efer=0x500, cs=SegmentRegister(8, 0, 0xFFFFFFFF, 0xA9B))

# Long mode, NX and SYSCALL; what goes with an ordinary 64-bit processor of leaf 1; 40 bits of physical address.
CPUID: CpuidTable = (
    CpuidEntry(1, None, 0, 0, 0, 0x078BFBFF),
    CpuidEntry(0x80000001, None, 0, 0, 0, 1 << 11 | 1 << 20 | 1 << 29),
    CpuidEntry(0x80000008, None, 40, 0, 0, 0),
)


@dataclass
class FakeHost:
    """A host whose TSC is what the test says, and which writes down what it is asked for."""

    tsc_khz: int = 2_000_000
    tsc: int = 5_000_000
    stopping: bool = False
    vectors: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    injected: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    armed: dict[int, int | None] = field(default_factory=dict[int, "int | None"])
    ended: list[int] = field(default_factory=list[int])
    # of vCPUs: what came online and from which state, what went offline, who got an NMI; what they await, and which
    # shall ignore SIPIs
    started: list[tuple[int, CpuState | None]] = field(default_factory=list[tuple[int, "CpuState | None"]])
    stopped: list[int] = field(default_factory=list[int])
    nmis: list[int] = field(default_factory=list[int])
    awaited: dict[int, Awaits] = field(default_factory=dict[int, "Awaits"])
    deaf: list[int] = field(default_factory=list[int])
    why: list[tuple[str | None, int | None]] = field(default_factory=list[tuple["str | None", "int | None"]])
    table: CpuidTable = CPUID
    # of sleep: who was put to sleep, who was woken, who let others run; and what backs frames that are no RAM
    blocked: list[int] = field(default_factory=list[int])
    woken: list[int] = field(default_factory=list[int])
    yielded: list[int] = field(default_factory=list[int])
    backs: Callable[[int], bool] | None = None
    typing: bytearray = field(default_factory=bytearray)

    def guest_tsc(self) -> int:
        return self.tsc

    def wallclock(self) -> int:
        return time.time_ns()

    def raise_vector(self, vcpu: int, vector: int) -> None:
        self.vectors.append((vcpu, vector))

    def inject(self, vcpu: int, vector: int) -> None:
        self.injected.append((vcpu, vector))

    def arm(self, vcpu: int, deadline: int | None) -> None:
        self.armed[vcpu] = deadline

    def end_domain(self, reason: int, why: str | None = None, vcpu: int | None = None) -> None:
        self.ended.append(reason)
        self.why.append((why, vcpu))

    def block(self, vcpu: int) -> None:
        self.blocked.append(vcpu)

    def wake(self, vcpu: int) -> None:
        self.woken.append(vcpu)

    def let_others_run(self, vcpu: int) -> None:
        self.yielded.append(vcpu)

    def back(self, gpa: int) -> bool:
        return self.backs is not None and self.backs(gpa)

    def cpuid(self, vcpu: int) -> CpuidTable:
        del vcpu
        return self.table

    def online(self, vcpu: int, state: CpuState | None) -> None:
        self.started.append((vcpu, state))

    def offline(self, vcpu: int) -> None:
        self.stopped.append(vcpu)

    def typed(self, count: int) -> bytes:
        data = bytes(self.typing[:count])
        del self.typing[:count]
        return data

    def awaits(self, vcpu: int) -> Awaits | None:
        return self.awaited.get(vcpu)

    def ignore_sipi(self, vcpu: int) -> None:
        self.deaf.append(vcpu)

    def nmi(self, vcpu: int) -> None:
        self.nmis.append(vcpu)


class Guest:
    """A domain and a way to call it as a guest would. bits is the width of the calling code."""

    def __init__(self, *, vcpus: int = 1, bits: int = 64, host: FakeHost | None = None) -> None:
        self.ram = GuestRam(((0, RAM), (SPECIAL, 0x8000)))
        self.host = host or FakeHost()
        self.said = bytearray()
        self.bits = bits
        plan = Plan(kernel(), BootOptions(vcpus=vcpus), (), MEMORY_MAP, ((0, RAM),), 0, StartInfo(0, 0, 0, 0, (), 0, 0))
        self.domain = Domain(Image(plan, self.ram, FLAT_32), self.host, self.said.extend)
        self._write_tables()

    def _write_tables(self) -> None:
        """Map RAM to itself, page by page, with READ_ONLY read-only."""
        for level in range(3):
            self.put("<Q", TABLES + level * 0x1000, TABLES + (level + 1) * 0x1000 | 3)
        for page in range(RAM >> 12):
            gpa = page << 12
            self.put("<Q", TABLES + 0x3000 + page * 8, gpa | (1 if gpa == READ_ONLY else 3))

    def put(self, layout: str, gpa: int, *values: int) -> None:
        assert self.ram.write(gpa, struct.pack(layout, *values))

    def get(self, layout: str, gpa: int) -> tuple[int, ...]:
        raw = self.ram.read(gpa, struct.calcsize(layout))
        assert raw is not None
        return struct.unpack(layout, raw)

    def raw(self, number: int, *args: int, vcpu: int = 0, cpl: int = 0, bits: int | None = None) -> int:
        """Make a hypercall; return the unsigned register value."""
        width = bits or self.bits
        state = LONG_64 if width == 64 else FLAT_32 if width == 32 else replace(FLAT_32, cs=SegmentRegister())
        a, b, c, d, e, *_ = (*args, 0, 0, 0, 0, 0)
        return hypercall(self.domain, vcpu, Hypercall(number, (a, b, c, d, e), width, cpl), lambda: state)

    def call(self, number: int, *args: int, vcpu: int = 0) -> int:
        """Make a hypercall; return the register as the signed number of the caller's width."""
        value, bits = self.raw(number, *args, vcpu=vcpu), 64 if self.bits == 64 else 32
        assert 0 <= value < 1 << bits
        return value - (1 << bits) if value >> bits - 1 else value

    def op(self, number: int, command: int, layout: str, *values: int, vcpu: int = 0) -> int:
        """Make a hypercall whose argument is a structure."""
        self.put(layout, ARG, *values)
        return self.call(number, command, ARG, vcpu=vcpu)

    def set_param(self, index: int, value: int, domid: int = DOMID_SELF) -> int:
        return self.op(HVM_OP, 0, "<HHIQ", domid, 0, index, value)

    def get_param(self, index: int, domid: int = DOMID_SELF) -> int:
        """Return the call's result; the value is at ARG + 8 then."""
        return self.op(HVM_OP, 1, "<HHIQ", domid, 0, index, 0xDEAD)

    def close(self) -> None:
        self.ram.close()
