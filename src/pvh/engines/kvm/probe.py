"""What this KVM can execute: tiny guests, one for each question, within 5 ms on a KVM worth using.

Some KVMs are software (no virtualisation below them) or emulate only part of the instruction set: they open and run,
and fail a kernel later in ways nobody can trace. The guests' source is tests/guests/kvm_probe.S.
"""

from __future__ import annotations

import os
import threading
from struct import pack_into
from time import perf_counter_ns

from pvh.abi import x86
from pvh.build.cpu_state import CpuState, SegmentRegister, TableRegister
from pvh.build.ram import GuestRam
from pvh.engines.exits import Broken, Exit, PortOut, Shutdown
from pvh.engines.kvm import cpuid
from pvh.engines.kvm.hypercall_page import Sites
from pvh.engines.kvm.interrupts import Interrupts
from pvh.engines.kvm.vcpu import KvmVcpu, Surroundings
from pvh.engines.kvm.vm import make_vm, run_size
from pvh.errors import EngineError
from pvh.record import dataclass

LOOP_NS = 300_000  # for 3000 instructions and an exit: 10 MIPS, where processors do 1000 and the emulator 100
_PATIENCE = 1.0  # seconds; within two of them a guest that does not end is stopped

_CODE, _GDT, _IDT, _PML4, _PDPT, _PD, _STACK, _RAM = 0x1000, 0x2000, 0x2100, 0x3000, 0x4000, 0x5000, 0x8000, 0x10000
_SLOT = 64
_PORT = 0xF4
_GUESTS = tuple(
    bytes.fromhex(code)
    for code in (
        "9c0e6808100000cfb001e6f4",
        "31c0cce6f4",
        "31c031d2f0480fc70c25006000000f94c0e6f4",
        "31c931d2b8030000000f01d1480fae242500600000480fae2c2500600000b001e6f4",
        "b001e6f4b9e8030000ff042500600000ffc975f5e6f4",
        "ffc048cf",  # the handler of int3
    )
)


@dataclass(frozen=True, slots=True)
class Check:
    """One question and its answer. detail says what happened when it did not pass."""

    name: str
    meaning: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found: the checks made, the frequency of guests' TSC in kHz, how long it took in ns."""

    checks: tuple[Check, ...]
    tsc_khz: int
    took_ns: int

    @property
    def failing(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)


_CHECKS = (
    ("iret32", "IRET in 32-bit protected mode without paging", 32),
    ("int3", "INT3 through the IDT and back, 64-bit", 64),
    ("cmpxchg16b", "LOCK CMPXCHG16B", 64),
    ("xrstor", "XSAVE and XRSTOR", 64),
    ("speed", "3000 instructions at more than 10 MIPS", 64),
)
_SPEED = 4


def run_probe(dev: int, *, until_failure: bool = False, timed: bool = True) -> Probe:
    """Ask an open /dev/kvm. Raises EngineError when KVM refuses to make a guest at all.

    until_failure  ask no more after the first failure
    timed          ask for the speed too
    """
    started = perf_counter_ns()
    table = cpuid.pack(cpuid.supported(dev))
    ram = GuestRam(((0, _RAM),))
    _fill(ram)
    vm = make_vm(dev, ram)
    try:
        vcpu = KvmVcpu(0, Surroundings(vm, run_size(dev), Interrupts(vm), ram, Sites(), ()))
        vcpu.set_cpuid(table)
        tsc_khz = vcpu.tsc_khz
        done = threading.Event()
        guard = threading.Thread(target=_impatience, args=(vcpu, done), daemon=True)
        guard.start()
        checks = _ask_all(vcpu, len(_CHECKS) if timed else _SPEED, until_failure=until_failure)
        done.set()
        guard.join()
        vcpu.close()
    finally:
        os.close(vm)
        ram.close()
    return Probe(tuple(checks), tsc_khz, perf_counter_ns() - started)


def _impatience(vcpu: KvmVcpu, done: threading.Event) -> None:
    """Kick a vCPU every second: a guest that does not end must not stop us for ever."""
    while not done.wait(_PATIENCE):
        vcpu.kick()


def _ask_all(vcpu: KvmVcpu, count: int, *, until_failure: bool) -> list[Check]:
    """Ask the first `count` questions, all of them or until one fails."""
    checks: list[Check] = []
    for slot, (name, meaning, bits) in enumerate(_CHECKS[:count]):
        passed, detail = _ask(vcpu, slot, bits)
        checks.append(Check(name, meaning, passed, detail))
        if until_failure and not passed:
            break
    return checks


def _ask(vcpu: KvmVcpu, slot: int, bits: int) -> tuple[bool, str]:
    """Run one guest; tell whether it passed, and what happened if not."""
    writes: list[tuple[int, int]] = []
    failures: list[str] = []

    def sink(event: Exit) -> None:
        if isinstance(event, PortOut) and event.port == _PORT:
            writes.append((event.value, perf_counter_ns()))
            if len(writes) == wanted:
                vcpu.kick()
        else:
            failures.append(_describe(event))
            if not isinstance(event, (Broken, Shutdown)):  # these end run() by themselves
                vcpu.kick()

    wanted = 2 if slot == _SPEED else 1
    try:
        vcpu.load(_entry(bits, _CODE + slot * _SLOT))
        vcpu.run(sink)
    except EngineError as error:
        failures.append(error.cause)
    return _judge(writes, failures, wanted)


def _judge(writes: list[tuple[int, int]], failures: list[str], wanted: int) -> tuple[bool, str]:
    if failures:
        return False, failures[0]
    if len(writes) < wanted:
        return False, f"it did not end within {2 * _PATIENCE:g} s"
    if any(value != 1 for value, _ in writes):
        return False, "it gave a wrong result"
    took = writes[-1][1] - writes[0][1]
    if took > LOOP_NS:
        return False, f"3000 instructions took {took / 1e6:.1f} ms ({3000e3 / took:.1f} MIPS)"
    return True, ""


def _describe(event: Exit) -> str:
    if isinstance(event, Broken):
        return event.detail
    return "a triple fault" if isinstance(event, Shutdown) else f"an unexpected exit: {event}"


def _fill(ram: GuestRam) -> None:
    """Write code, GDT, IDT and page tables that map the first 2 MiB onto themselves."""
    memory = ram.blocks[0].view
    for slot, code in enumerate(_GUESTS):
        memory[_CODE + slot * _SLOT : _CODE + slot * _SLOT + len(code)] = code
    pack_into("<4Q", memory, _GDT, 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00AF9B000000FFFF)
    handler = _CODE + (len(_GUESTS) - 1) * _SLOT
    pack_into("<HHHHII", memory, _IDT + 16 * x86.BP, handler, 0x18, 0x8E00, 0, 0, 0)  # 64-bit interrupt gate
    pack_into("<Q", memory, _PML4, _PDPT | 3)
    pack_into("<Q", memory, _PDPT, _PD | 3)
    pack_into("<Q", memory, _PD, 0x83)


def _entry(bits: int, rip: int) -> CpuState:
    """Return the state in which a guest starts: flat segments, and long mode if it is a 64-bit one."""
    data = SegmentRegister(0x10, 0, 0xFFFFFFFF, 0xC93)
    wide = bits == 64
    gprs = [0] * 16
    gprs[3], gprs[4] = 1, _STACK  # rbx, rsp
    return CpuState(
        gprs=tuple(gprs),
        rip=rip,
        cs=SegmentRegister(0x18, 0, 0xFFFFFFFF, 0xA9B) if wide else SegmentRegister(0x08, 0, 0xFFFFFFFF, 0xC9B),
        ds=data,
        es=data,
        ss=data,
        tr=SegmentRegister(0, 0, 0x67, 0x8B),
        gdtr=TableRegister(_GDT, 31),
        idtr=TableRegister(_IDT, 255),
        cr0=x86.CR0_PE | x86.CR0_ET | (x86.CR0_PG if wide else 0),
        cr3=_PML4,
        cr4=x86.CR4_PAE | x86.CR4_OSFXSR | x86.CR4_OSXSAVE if wide else 0,
        efer=x86.EFER_LME | x86.EFER_LMA if wide else 0,
    )
