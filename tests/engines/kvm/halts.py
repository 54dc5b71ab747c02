"""Guests that halt with interrupts off, on a whole machine over KVM: run by pytest here, and inside by nested.py."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from engines.flat import FLAT_STATE, MEMORY
from engines.kvm.scenarios import BASE, SLOT, Run, guest_image, idt
from pvh.abi.x86 import PAGE_SIZE
from pvh.build.image import Image
from pvh.build.ram import GuestRam
from pvh.engines.kvm.engine import KvmEngine
from pvh.engines.kvm.hypercall_page import VMCALL
from pvh.machine import Machine
from pvh.outcome import Outcome
from pvh.plan.layout import SPECIAL_PAGES
from pvh.plan.options import Platform

CLI_HLT = b"\xfa\xf4"
STI_HLT = b"\xfb\xf4\xeb\xfd"
END_PORT = b"\xe6\xf4"
BLOCK = b"\xb8\x1d\x00\x00\x00\xbb\x01\x00\x00\x00\x31\xc9" + VMCALL  # sched_op(SCHEDOP_block)
SPIN = b"\xeb\xfe"
AP = 0x8000
ICR = b"\xc7\x05\x00\x03\xe0\xfe"  # movl $..., 0xfee00300: to all but itself
START_AP = ICR + b"\x00\x45\x0c\x00" + ICR + b"\x08\x46\x0c\x00"  # INIT, SIPI of page 8 (Intel SDM vol. 3, 11.6.1)
VECTOR = 0x51
TIMER = b"\xc7\x05\x20\x03\xe0\xfe\x51\x00\x00\x00" + b"\xc7\x05\x80\x03\xe0\xfe\x00\x00\x00\x02"  # once, in 60 ms
APIC_ON = b"\xc7\x05\xf0\x00\xe0\xfe\xff\x01\x00\x00"


def boot(
    engine: KvmEngine, code: bytes, ap: bytes = b"", platform: Platform = "xen", seconds: float = 0.9
) -> tuple[Outcome, float]:
    """Run code, whose interrupt's handler halts for good; return how it ended, and the processor time that took."""
    image = guest_image(0, vcpus=2 if ap else 1)
    image.ram.close()
    ram = GuestRam(((0, MEMORY), (SPECIAL_PAGES[0].start, 8 * PAGE_SIZE)))
    assert ram.write(BASE, code)
    assert ram.write(AP, ap)
    options = replace(image.plan.options, platform=platform, timeout=seconds)
    plan = replace(image.plan, options=options)
    state = replace(FLAT_STATE, rip=BASE, **idt(ram, VECTOR, 1))  # type: ignore[arg-type]
    assert ram.write(BASE + SLOT, CLI_HLT)
    machine = Machine(Image(plan, ram, state), engine, lambda _: None)
    begin = time.process_time()
    outcome = machine.run()
    ram.close()
    return outcome, time.process_time() - begin


def xen_takes_it_down(engine: KvmEngine) -> None:
    """hvm_hlt: the last vCPU that halts with interrupts off powers the domain off."""
    outcome, _ = boot(engine, CLI_HLT)
    assert (outcome.ending, outcome.status, outcome.vcpu) == ("poweroff", 0, 0)
    assert "halted with interrupts off" in outcome.reason
    assert outcome.seconds < 1


def bare_hangs(engine: KvmEngine) -> None:
    """Hardware waits for an NMI that nobody sends."""
    for ap in (b"", SPIN):
        outcome, _ = boot(engine, CLI_HLT, ap, "bare")
        assert outcome.ending == "hang", "the second was never started"
        assert outcome.seconds < 1


def another_runs_on(engine: KvmEngine) -> None:
    """One vCPU that is left is a running guest; and one that awaits an interrupt is no dead one."""
    for platform in ("xen", "bare"):
        outcome, spent = boot(engine, APIC_ON + START_AP + CLI_HLT, STI_HLT, platform)
        assert outcome.ending == "deadline"
        assert spent < 0.5
        outcome, _ = boot(engine, STI_HLT, platform=platform)
        assert outcome.ending == "deadline"


def one_that_blocks_is_not_dead(engine: KvmEngine) -> None:
    """SCHEDOP_block with interrupts off waits for an event: Xen's, not HLT's."""
    outcome, spent = boot(engine, BLOCK + CLI_HLT)
    assert outcome.exits == (("Hypercall", 1),)
    assert outcome.ending == "deadline"
    assert spent < 0.5


def one_that_was_interrupted_may_die(engine: KvmEngine) -> None:
    """The kernel's APIC ends the sleep that Xen's side knows of without a word."""
    outcome, _ = boot(engine, APIC_ON + TIMER + b"\xfb" + BLOCK + SPIN, seconds=3)
    assert outcome.exits == (("Hypercall", 1),)
    assert outcome.ending == "poweroff"


def both_halt(engine: KvmEngine) -> None:
    """An AP that INIT and SIPI started counts."""
    endings: dict[Platform, str] = {"xen": "poweroff", "bare": "hang"}
    for platform, ending in endings.items():
        outcome, _ = boot(engine, APIC_ON + START_AP + CLI_HLT, CLI_HLT, platform)
        assert outcome.ending == ending
        assert outcome.seconds < 1


def goes_on_behind_it(engine: KvmEngine) -> None:
    """Parked in a HLT with interrupts off, a vCPU goes on behind it; one that sleeps until an interrupt sleeps on."""
    for code, awaited, ended in ((CLI_HLT + END_PORT, "nmi", 1), (STI_HLT, "nothing", 0)):
        image = guest_image(0)
        assert image.ram.write(BASE, code)
        with Run(engine, image) as run:
            vcpu = run.vm.vcpus[0]
            seen = [between(run, 0.1), vcpu.awaits()]
            vcpu.park()
            seen += [between(run, 0.05)]
            vcpu.resume()
            seen += [between(run, 0.1)]
            assert seen == [awaited, awaited, "resume", "nothing"]
            assert len(run.exits) == ended


def between(run: Run, seconds: float) -> str:
    """Run the vCPU for a while; return what it awaited in the end, asked from outside while it ran."""
    vcpu = run.vm.vcpus[0]
    thread = threading.Thread(target=vcpu.run, args=(run.sink,))
    thread.start()
    thread.join(seconds)
    answer = vcpu.awaits()
    vcpu.kick()
    thread.join()
    return answer


HALTS: tuple[Callable[[KvmEngine], None], ...] = (
    xen_takes_it_down,
    bare_hangs,
    another_runs_on,
    both_halt,
    one_that_blocks_is_not_dead,
    one_that_was_interrupted_may_die,
    goes_on_behind_it,
)
