"""What KVM keeps of a vCPU comes back, asked of KVM by other ioctls than those that kept it.

Functions of an engine: run by pytest here, and by nested.py on a genuine KVM.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from struct import Struct

from engines.flat import CODE, FLAT_STATE, MEMORY
from engines.kvm.scenarios import guest_image
from pvh.build.image import Image
from pvh.build.ram import GuestRam
from pvh.engines.kvm import ioctl as kvm
from pvh.engines.kvm.engine import KvmEngine
from pvh.engines.kvm.state import read_msr
from pvh.engines.kvm.vm import KvmVm

GET_FPU, GET_XSAVE, SET_XSAVE = 0x81A0AE8C, 0x9000AEA4, 0x5000AEA5
GET_LAPIC, SET_LAPIC = 0x8400AE8E, 0x4400AE8F
FPU = Struct("<128xHHBBHQQ256s8x")  # struct kvm_fpu: fcw fsw ftwx pad last_opcode last_ip last_dp xmm
XSAVE = Struct("<H22xI132x256s96xQ3576x")  # Intel SDM vol. 1, 13.4: FCW, MXCSR, XMM, XSTATE_BV
XMM = bytes(range(256))
MSRS = {0x174: 0x10, 0x277: 0x0007040600070401, 0x2FF: 0xC06, 0xC0000081: 0x23001000000000, 0xC0000102: 0x1234}
TASK_PRIORITY = 0x80


@contextmanager
def opened(engine: KvmEngine, code: bytes = b"\xf4", vcpus: int = 1) -> Generator[KvmVm]:
    ram = GuestRam(((0, MEMORY),))
    assert ram.write(CODE, code)
    plain = guest_image(0, vcpus=vcpus)
    plain.ram.close()
    plan = replace(plain.plan, options=replace(plain.plan.options, platform="bare"))
    vm = engine.open(Image(plan, ram, FLAT_STATE), (engine.cpuid(),) * vcpus)
    yield vm
    vm.close()
    ram.close()


def heeds_tsc_offsets(engine: KvmEngine) -> bool:
    """Tell whether a TSC moves with its offset; kvm-pvm takes one, and its guests read the host's TSC all the same."""
    with opened(engine) as vm:
        (vcpu,) = vm.vcpus
        before = vcpu.tsc()
        vcpu.tsc_offset += 10**15
        return vcpu.tsc() - before >= 10**15


def lapic(fd: int) -> bytearray:
    page = bytearray(1024)
    kvm.call(fd, GET_LAPIC, page)
    return page


def registers_that_only_snapshots_touch_are_there_in_another_guest(engine: KvmEngine) -> None:
    with opened(engine) as one, opened(engine) as other:
        fd = one.vcpus[0]._fd
        kvm.call(fd, SET_XSAVE, XSAVE.pack(0x27F, 0x1FA0, XMM, 3))
        for index, value in MSRS.items():
            request = kvm.MSR_LIST_HEADER.pack(1, 0) + kvm.MSR_ENTRY.pack(index, 0, value)
            assert kvm.call(fd, kvm.SET_MSRS, request) == 1
        kvm.call(fd, kvm.SET_DEBUGREGS, Struct("<6Q80x").pack(1, 2, 3, 4, 0xFFFF0FF0, 0x401))
        page = lapic(fd)
        page[TASK_PRIORITY] = 0x30
        kvm.call(fd, SET_LAPIC, page)
        other.apply(one.capture())

        copy, fpu, debug = other.vcpus[0]._fd, bytearray(FPU.size), bytearray(128)
        kvm.call(copy, GET_FPU, fpu)
        kvm.call(copy, kvm.GET_DEBUGREGS, debug)
        assert FPU.unpack(fpu) == (0x27F, 0, 0, 0, 0, 0, 0, XMM)
        area = bytearray(XSAVE.size)
        kvm.call(copy, GET_XSAVE, area)
        assert XSAVE.unpack(area)[1] == 0x1FA0  # KVM_GET_FPU leaves MXCSR out
        assert Struct("<6Q80x").unpack(debug) == (1, 2, 3, 4, 0xFFFF0FF0, 0x401)
        assert {index: read_msr(copy, index) for index in MSRS} == MSRS
        assert lapic(copy)[TASK_PRIORITY] == 0x30
        assert other.vcpus[0].state() == one.vcpus[0].state()


def time_stamp_counters_go_on_as_if_nothing_had_been(engine: KvmEngine) -> None:
    """And stay as far apart as they were. Within a second, in which KVM takes a written TSC for another's."""
    with opened(engine, vcpus=2) as vm:
        first, second = vm.vcpus
        second.tsc_offset = first.tsc_offset + 10**12
        state = vm.capture()
        time.sleep(0.3)
        began = time.monotonic_ns()
        vm.apply(state)
        passed, now, seen = first.tsc() - state["at"], first.tsc(), vm.tsc()
        most = (time.monotonic_ns() - began) * first.tsc_khz // 1_000_000 * 1.01 + 100_000
        assert 0 <= passed <= most
        assert 0 <= seen - now <= most
        assert (second.tsc_offset - first.tsc_offset) % 2**64 == 10**12


KEEPING = (
    registers_that_only_snapshots_touch_are_there_in_another_guest,
    time_stamp_counters_go_on_as_if_nothing_had_been,
)
