"""What guests must see on KVM, as functions of an engine: run by pytest here, and by nested.py on a genuine KVM.

The guests are tests/guests/kvm_scenarios.S. Nothing here needs more than the standard library and pvh.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from struct import pack
from typing import Any, Self

from engines.flat import FLAT_STATE, MEMORY, long_state
from pvh.abi.x86 import CR0_CD, CR0_NW, MSR_LSTAR, MSR_MTRR_DEF_TYPE, MSR_PAT
from pvh.build.cpu_state import CpuState, TableRegister
from pvh.build.image import Image
from pvh.build.ram import GuestRam
from pvh.engines.exits import (
    Broken,
    Exit,
    Hypercall,
    MmioRead,
    MmioWrite,
    MsrRead,
    MsrWrite,
    PortIn,
    PortOut,
    Shutdown,
)
from pvh.engines.kvm import state
from pvh.engines.kvm.engine import KvmEngine
from pvh.engines.kvm.vm import KvmVm
from pvh.kernel.read import read_kernel
from pvh.plan.options import BootOptions
from pvh.plan.record import Plan, StartInfo
from pvh.xen.hypercall_page import hypercall_page

GUESTS = os.path.join(os.path.dirname(__file__), "..", "..", "guests", "kvm_scenarios.elf")
BASE, SLOT = 0x1000, 0x100
FOUND, END, PAGE, COUNTER, AP_CODE, IDT = 0xE0, 0xF4, 0x5000, 0x6000, 0x8000, 0x7000

Answer = Callable[[Exit], int | None]


def guest_image(slot: int, *, wide: bool = False, vcpus: int = 1, patch: bool = True, **registers: Any) -> Image:
    """Return an image that enters one guest; registers change its entry state."""
    kernel = read_kernel(GUESTS)
    ram = GuestRam(((0, MEMORY),))
    for segment in kernel.loads:
        assert ram.write(segment.paddr, kernel.source.read(segment.offset, segment.filesz))
    options = BootOptions(memory=MEMORY, vcpus=vcpus, engine="kvm", patch=patch)
    plan = Plan(kernel, options, (), (), ((0, MEMORY),), BASE, StartInfo(0, 0, 0, 0, (), 0, 0))
    state = long_state(ram) if wide else FLAT_STATE
    return Image(plan, ram, replace(state, rip=BASE + SLOT * slot, **registers))


@dataclass(slots=True)
class Run:
    """A guest on the engine: what it reported."""

    engine: KvmEngine
    image: Image
    answer: Answer = lambda _: 0
    exits: list[Exit] = field(default_factory=list[Exit])
    vm: KvmVm = field(init=False)

    def __enter__(self) -> Self:
        tables = (self.engine.cpuid(),) * self.image.plan.options.vcpus
        self.vm = self.engine.open(self.image, tables)
        return self

    def __exit__(self, *_: object) -> None:
        self.vm.close()
        self.image.ram.close()

    def sink(self, event: Exit) -> int | None:
        """Record an exit and answer it; a write to the end port stops its vCPU."""
        self.exits.append(event)
        if isinstance(event, PortOut) and event.port == END:
            self.vm.vcpus[0].kick()
            return None
        return self.answer(event)

    def go(self, seconds: float = 10.0) -> Run:
        """Run vCPU 0 until it ends, or is stopped after a while."""
        guard = threading.Timer(seconds, self.vm.vcpus[0].kick)
        guard.start()
        try:
            self.vm.vcpus[0].run(self.sink)
        finally:
            guard.cancel()
        return self

    @property
    def found(self) -> list[int]:
        """What the guest wrote to the port for findings."""
        return [event.value for event in self.exits if isinstance(event, PortOut) and event.port == FOUND]

    def of(self, *kinds: type[Exit]) -> list[Exit]:
        """Return the exits of some kinds, without the end's."""
        wanted = [event for event in self.exits if isinstance(event, kinds)]
        return [event for event in wanted if not (isinstance(event, PortOut) and event.port == END)]


def ended(run: Run) -> bool:
    """Tell whether the guest came to its own end."""
    return isinstance(run.exits[-1], PortOut) and run.exits[-1].port == END


def idt(ram: GuestRam, vector: int, slot: int) -> dict[str, TableRegister]:
    """Write a 32-bit interrupt gate to a guest's code (Intel SDM vol. 3, 6.11), and a GDT with its segment, 8."""
    handler = BASE + SLOT * slot
    assert ram.write(IDT + 8 * vector, pack("<HHHH", handler, 8, 0x8E00, handler >> 16))
    assert ram.write(IDT + 0x800, pack("<3Q", 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF))
    return {"idtr": TableRegister(IDT, 0x7FF), "gdtr": TableRegister(IDT + 0x800, 23)}


def with_handler(slot: int, vector: int, handler: int) -> Image:
    """Return an image whose interrupt or exception `vector` goes to another guest's code."""
    image = guest_image(slot)
    return replace(image, entry=replace(image.entry, **idt(image.ram, vector, handler)))  # type: ignore[arg-type]


def ports(engine: KvmEngine) -> None:
    """IN takes the answer's low bytes; OUT reports what it wrote, and both their size."""
    with Run(engine, guest_image(0), lambda e: 0x1122334455 if isinstance(e, PortIn) else None) as run:
        run.go()
        sizes = [(1, 0x55), (2, 0x4455), (4, 0x22334455)]
        steps = [event for size, value in sizes for event in (PortIn(0x1234, size), PortOut(0x1234, size, value))]
        assert run.of(PortIn, PortOut) == steps
        assert ended(run)


def string_ports(engine: KvmEngine) -> None:
    """Each step of OUTS and INS is an exit of its own."""
    words = iter((0x1111, 0x2222))
    with Run(engine, guest_image(1), lambda e: next(words) if isinstance(e, PortIn) else None) as run:
        run.go()
        assert run.of(PortOut) == [PortOut(0x1234, 1, value) for value in b"abc"]
        assert run.of(PortIn) == [PortIn(0x1234, 2)] * 2
        assert run.image.ram.read(COUNTER, 4) == pack("<HH", 0x1111, 0x2222)


def mmio(engine: KvmEngine) -> None:
    """Loads and stores where no memory is come with their size."""
    hole = 0xD0000000
    with Run(engine, guest_image(2), lambda e: 0xA1B2C3D4 if isinstance(e, MmioRead) else None) as run:
        run.go()
        assert run.of(MmioRead, MmioWrite) == [
            MmioRead(hole, 4),
            MmioWrite(hole + 0x10, 4, 0xA1B2C3D4),
            MmioRead(hole + 0x20, 1),
            MmioWrite(hole + 0x31, 1, 0xD4),
            MmioRead(hole + 0x40, 2),
            MmioWrite(hole + 0x52, 2, 0xC3D4),
        ]


def xen_msr(engine: KvmEngine) -> None:
    """The MSR named by Xen's CPUID leaf 0x40000002 reaches the sink, both ways."""
    with Run(engine, guest_image(3), lambda e: 0x1234567890 if isinstance(e, MsrRead) else 0) as run:
        run.go()
        assert run.of(MsrRead, MsrWrite) == [MsrWrite(0x40000000, 0x100005000), MsrRead(0x40000000)]
        assert run.found == [0x34567890, 0x12]


def refused_msr(engine: KvmEngine) -> None:
    """An MSR that KVM does not have is the sink's; its None is #GP."""
    with Run(engine, with_handler(4, 13, 5), lambda e: 7 if e == MsrRead(0xDEAD) else None) as run:
        run.go()
        assert run.of(MsrRead) == [MsrRead(0xDEAD), MsrRead(0xBEEF)]
        assert run.found[0] == 7
        assert run.found[1] & 0xFF == 13


def direct_hypercalls(engine: KvmEngine) -> None:
    """VMCALL and VMMCALL in the kernel's code are hypercalls: number and arguments in, result in EAX, all else kept."""
    with Run(engine, guest_image(6), lambda e: 0x80000000 | e.number if isinstance(e, Hypercall) else None) as run:
        run.go()
        args = (1, 2, 3, 4, 5)
        assert run.of(Hypercall) == [Hypercall(17, args, 32, 0), Hypercall(18, args, 32, 0)]
        assert run.found == [0x80000011, 0x80000012, 1]
        assert run.vm.patched == () or len(run.vm.patched) == 3, "two here, one in the 64-bit guest"


def patching_forbidden(engine: KvmEngine) -> None:
    """options.patch off leaves the guest's code alone, and the guest on KVM says which calls it will not see."""
    image = guest_image(6, patch=False)
    before = image.ram.read(BASE, 0x2000)
    with Run(engine, image) as run:
        assert image.ram.read(BASE, 0x2000) == before
        assert run.vm.patched == ()
        assert len(run.vm.unpatched) in {0, 3}


def page_hypercall(engine: KvmEngine) -> None:
    """A stub of the hypercall page makes its number's call, and keeps every register but EAX."""
    with Run(engine, guest_image(7), lambda e: 0x99 if isinstance(e, Hypercall) else None) as run:
        assert run.image.ram.write(PAGE, hypercall_page(run.vm.hypercall_stub))
        run.vm.written(PAGE, 4096)
        run.go()
        assert run.of(Hypercall) == [Hypercall(17, (1, 2, 3, 4, 5), 32, 0)]
        assert run.found == [0x99, PAGE + 17 * 32]


def page_without_notice(engine: KvmEngine) -> None:
    """Stubs count from the moment the host says that it wrote them; a page overwritten since is none any more."""
    with Run(engine, guest_image(7)) as run:
        assert run.image.ram.write(PAGE, hypercall_page(run.vm.hypercall_stub))
        run.vm.written(PAGE, 4096)
        assert run.image.ram.write(PAGE, hypercall_page(run.vm.hypercall_stub)[::-1])
        run.vm.written(PAGE, 4096)
        assert run.image.ram.write(PAGE, hypercall_page(run.vm.hypercall_stub))
        run.go(1.0)
        assert run.vm.patched == () or run.of(Hypercall) == []


def the_guests_own_out(engine: KvmEngine) -> None:
    """The instruction that stands for a hypercall is port I/O wherever the engine did not put it."""
    with Run(engine, guest_image(8)) as run:
        run.go()
        assert run.of(PortOut, Hypercall) == [PortOut(0xEA, 1, 0x77)]


def wide_hypercalls(engine: KvmEngine) -> None:
    """64-bit code passes rdi rsi rdx r10 r8 and gets all of RAX."""
    with Run(engine, guest_image(17, wide=True), lambda e: -38 if isinstance(e, Hypercall) else None) as run:
        assert run.image.ram.write(PAGE, hypercall_page(run.vm.hypercall_stub))
        run.vm.written(PAGE, 4096)
        run.go()
        args = (0x1111111122222222, 0x3333333344444444, 3, 4, 5)
        assert run.of(Hypercall) == [Hypercall(17, args, 64, 0), Hypercall(18, args, 64, 0)]
        assert run.found == [0xFFFFFFDA, 0xFFFFFFFF, 0xFFFFFFDA]


def triple_fault(engine: KvmEngine) -> None:
    """A fault that cannot be delivered ends the vCPU, which then does not run again."""
    with Run(engine, guest_image(9)) as run:
        run.go()
        assert [type(event) for event in run.exits] == [Shutdown]
        run.vm.vcpus[0].run(run.sink)
        assert len(run.exits) == 1


def no_memory_to_execute(engine: KvmEngine) -> None:
    """What KVM cannot execute is a Broken exit that says where, and the vCPU does not go on."""
    with Run(engine, guest_image(16)) as run:
        run.go()
        (event,) = run.exits
        assert isinstance(event, Broken)
        assert "0xd0000000" in event.detail
        assert "KVM_INTERNAL_ERROR_EMULATION" in event.detail


def kick_before_run(engine: KvmEngine) -> None:
    """A kick that comes before run() is not lost."""
    with Run(engine, guest_image(10)) as run:
        run.vm.vcpus[0].kick()
        run.go(5)
        begin = time.monotonic()
        run.vm.vcpus[0].kick()
        run.vm.vcpus[0].run(run.sink)
        assert time.monotonic() - begin < 1
        assert run.vm.vcpus[0].state().rip == BASE + SLOT * 10


def kick_from_the_sink(engine: KvmEngine) -> None:
    """A kick during an exit completes the instruction: RIP is behind it, and its answer is in the register."""
    with Run(engine, guest_image(0)) as run:

        def sink(event: Exit) -> int:
            run.exits.append(event)
            run.vm.vcpus[0].kick()
            return 0x5A

        run.vm.vcpus[0].run(sink)
        state = run.vm.vcpus[0].state()
        assert run.exits == [PortIn(0x1234, 1)]
        assert (state.gprs[0] & 0xFF, state.rip) == (0x5A, BASE + 5)


def kicks_are_exact(engine: KvmEngine) -> None:
    """However often a loop is stopped, no instruction of it is lost or done twice."""
    with Run(engine, guest_image(11)) as run:
        vcpu = run.vm.vcpus[0]
        for delay in range(100):
            timer = threading.Timer(0.0002 + delay * 0.00001, vcpu.kick)
            timer.start()
            vcpu.run(run.sink)
            timer.join()
            counter = int.from_bytes(run.image.ram.read(COUNTER, 4) or b"", "little")
            assert (counter - vcpu.state().gprs[0]) & 0xFFFFFFFF in {0, 1}
        assert run.exits == []
        assert vcpu.state().gprs[0] > 100


def interrupts(engine: KvmEngine) -> None:
    """raise_vector goes through the local APIC, from any thread, and again once the guest said EOI."""
    with Run(engine, with_handler(12, 0x51, 13)) as run:
        vcpu = run.vm.vcpus[0]

        def sink(event: Exit) -> None:
            run.exits.append(event)
            if len(run.exits) == 3:
                vcpu.kick()
            else:
                threading.Timer(0.01, vcpu.raise_vector, (0x51,)).start()

        guard = threading.Timer(5, vcpu.kick)
        guard.start()
        vcpu.run(sink)
        guard.cancel()
        assert [value & 0xFF for value in run.found[1:]] == [0x51, 0x51]


def interrupt_before_its_apic_is_on(engine: KvmEngine) -> None:
    """A vector raised while the local APIC is off arrives once it is on (xen/arch/x86/hvm/vlapic.c, vlapic_set_irq)."""
    with Run(engine, with_handler(12, 0x51, 13), lambda _: None) as run:
        run.vm.vcpus[0].raise_vector(0x51)
        time.sleep(0.01)
        threading.Timer(1.0, run.vm.vcpus[0].kick).start()
        run.vm.vcpus[0].run(run.sink)
        assert [value & 0xFF for value in run.found] == [run.found[0] & 0xFF, 0x51], "once, and not before"


def second_processor(engine: KvmEngine) -> None:
    """An AP waits inside run() for INIT and SIPI, and begins in real mode at the vector's page (SDM vol. 3, 8.4.4)."""
    image = guest_image(14, vcpus=2)
    code = image.ram.read(BASE + SLOT * 15, SLOT)
    assert code
    assert image.ram.write(AP_CODE, code)
    with Run(engine, image) as run:
        said: list[tuple[int, Exit]] = []
        ap = run.vm.vcpus[1]
        assert state.read_msr(ap._fd, MSR_MTRR_DEF_TYPE) == 0x806

        def body(index: int) -> None:
            run.vm.vcpus[index].run(lambda event: said.append((index, event)))

        threads = [threading.Thread(target=body, args=(index,)) for index in (1, 0)]
        for thread in threads:
            thread.start()
        limit = time.monotonic() + 5
        while not said and time.monotonic() < limit:
            time.sleep(0.005)
        for vcpu in run.vm.vcpus:
            vcpu.kick()
        for thread in threads:
            thread.join(5)
        assert not any(thread.is_alive() for thread in threads), "a halted vCPU must leave when it is kicked"
        assert said == [(1, PortOut(FOUND, 2, AP_CODE >> 4))]
        assert not ap.state().cr0 & (CR0_CD | CR0_NW)
        assert state.read_msr(ap._fd, MSR_MTRR_DEF_TYPE) == 0x806, "as on the first (facts/xen-abi.md)"


def waiting_processor_leaves(engine: KvmEngine) -> None:
    """An AP that nobody starts leaves run() when it is kicked."""
    with Run(engine, guest_image(10, vcpus=2)) as run:
        thread = threading.Thread(target=run.vm.vcpus[1].run, args=(run.sink,))
        thread.start()
        time.sleep(0.05)
        assert thread.is_alive()
        run.vm.vcpus[1].kick()
        thread.join(5)
        assert not thread.is_alive()


def apic_message_before_the_first_run(engine: KvmEngine) -> None:
    """An INIT, and a SIPI, come about where they overtake the thread that is to run the vCPU."""
    icr, leave = b"\xc7\x05\x00\x03\xe0\xfe", b"\xe6" + bytes([END])  # movl $..., 0xfee00300; out
    init, sipi = icr + b"\x00\x45\x0c\x00" + leave, icr + b"\x08\x46\x0c\x00" + leave  # to all but itself
    image = guest_image(0, vcpus=2)
    assert image.ram.write(BASE, init + sipi + init)
    with Run(engine, image) as run:
        vcpu = run.vm.vcpus[1]
        assert vcpu.awaits() == "init"
        vcpu.load(replace(FLAT_STATE, rip=AP_CODE))
        assert vcpu.awaits() == "nothing"
        run.go()
        assert vcpu.awaits() == "sipi"
        run.go()
        assert vcpu.awaits() == "nothing"
        run.go()
        vcpu.ignore_sipi()
        assert vcpu.awaits() == "init"


def nmi_of_a_waiting_processor(engine: KvmEngine) -> None:
    """An NMI to an AP that nobody started, or to one that is parked, does not run it, and costs nothing."""
    spent: list[float] = []

    def body(run: Run) -> None:
        run.vm.vcpus[1].run(run.sink)
        spent.append(time.thread_time())

    for parked in (False, True):
        with Run(engine, guest_image(10, vcpus=2)) as run:
            vcpu = run.vm.vcpus[1]
            if parked:
                vcpu.load(replace(FLAT_STATE, rip=BASE))
                vcpu.nmi()  # it has not had the time to take this one
                vcpu.park()
            vcpu.nmi()
            thread = threading.Thread(target=body, args=(run,))
            thread.start()
            time.sleep(0.3)
            vcpu.kick()
            thread.join(5)
            assert not run.exits
            assert spent.pop() < 0.1, "seconds of processor time"


def loading_twice(engine: KvmEngine) -> None:
    """load() is exact on a vCPU that has run: what comes back is what went in, hidden parts and all."""
    with Run(engine, guest_image(0)) as run:
        run.go()
        vcpu = run.vm.vcpus[0]
        state._write_msrs(vcpu._fd, ((MSR_LSTAR, 0x1234), (MSR_PAT, 0)))
        entry = replace(FLAT_STATE, rip=0x2000, gprs=tuple(range(100, 116)), cr2=0x123, dr0=0x2000, dr3=1 << 40)
        vcpu.load(entry)
        assert vcpu.state() == entry
        assert state.read_msr(vcpu._fd, MSR_LSTAR) == 0
        assert state.read_msr(vcpu._fd, MSR_PAT) == 0x0007040600070406, "its value after RESET (SDM vol. 3, 12.12.4)"


def entry_state(engine: KvmEngine) -> None:
    """load() is exact on a fresh vCPU too, null segments included."""
    image = guest_image(0)
    plain = CpuState(rip=0x1234, cs=FLAT_STATE.cs, tr=FLAT_STATE.tr, ss=FLAT_STATE.ss, cr0=0x11)
    with Run(engine, replace(image, entry=plain)) as run:
        assert run.vm.vcpus[0].state() == plain


def guest_clock(engine: KvmEngine) -> None:
    """vm.tsc() lies between what the guest reads before and after."""
    with Run(engine, guest_image(18)) as run:
        before = run.vm.tsc()
        run.go()
        after = run.vm.tsc()
        low, high = run.found
        assert before < high << 32 | low < after
        begin, clock = time.monotonic_ns(), run.vm.tsc()
        time.sleep(0.05)
        ticks, elapsed = run.vm.tsc() - clock, time.monotonic_ns() - begin
        assert abs(ticks * 1e6 / elapsed / engine.tsc_khz - 1) < 0.02


def cpuid(engine: KvmEngine) -> None:
    """The guest sees the table's APIC id field, and nothing of KVM's own leaves."""
    with Run(engine, guest_image(19)) as run:
        run.go()
        assert run.found[0] >> 24 == 0
        assert run.found[1] != int.from_bytes(b"KVMK", "little")


SCENARIOS: tuple[Callable[[KvmEngine], None], ...] = (
    ports,
    string_ports,
    mmio,
    xen_msr,
    refused_msr,
    direct_hypercalls,
    patching_forbidden,
    page_hypercall,
    page_without_notice,
    the_guests_own_out,
    wide_hypercalls,
    triple_fault,
    no_memory_to_execute,
    kick_before_run,
    kick_from_the_sink,
    kicks_are_exact,
    interrupts,
    interrupt_before_its_apic_is_on,
    second_processor,
    waiting_processor_leaves,
    apic_message_before_the_first_run,
    nmi_of_a_waiting_processor,
    loading_twice,
    entry_state,
    guest_clock,
    cpuid,
)
