"""Exits that no KVM here can be made to give, and what the host does to a running guest."""

from __future__ import annotations

import errno
import mmap
import os
from dataclasses import replace
from pathlib import Path

import pytest

from engines.flat import FLAT_STATE, MEMORY, long_state
from engines.kvm.scenarios import Run, guest_image
from pvh.build.ram import GuestRam
from pvh.engines.exits import Broken, Exit, Halt, Hypercall
from pvh.engines.kvm import ioctl as kvm
from pvh.engines.kvm import state as registers
from pvh.engines.kvm.engine import KvmEngine
from pvh.engines.kvm.hypercall_page import Sites
from pvh.engines.kvm.interrupts import Interrupts
from pvh.engines.kvm.vcpu import KvmVcpu, Surroundings
from pvh.errors import EngineError
from pvh.kernel.source import FileSource, identify


def bare(reason: int, union: bytes, *, wide: bool = False) -> KvmVcpu:
    """Return a vCPU without a KVM, standing at an exit."""
    vcpu = KvmVcpu.__new__(KvmVcpu)
    run = mmap.mmap(-1, 4096)
    kvm.U32.pack_into(run, kvm.RUN_EXIT_REASON, reason)
    run[kvm.RUN_UNION : kvm.RUN_UNION + len(union)] = union
    state = long_state(GuestRam(((0, MEMORY),))) if wide else FLAT_STATE
    run[kvm.RUN_SREGS : kvm.RUN_SREGS + registers.SREGS_SIZE] = registers.pack_sregs(state, 0)
    vcpu._run = run
    vcpu._around = Surroundings(-1, 4096, Interrupts(-1), GuestRam(()), Sites(), ())
    return vcpu


def test_kvm_exit_xen_is_a_hypercall() -> None:
    """struct kvm_xen_exit of linux/kvm.h: type, longmode, cpl, input, result, params; the result goes back in place."""
    union = kvm.RUN_XEN.pack(kvm.XEN_HCALL, 1, 3, 29, 0, 1, 2, 3, 4, 5, 6)
    assert len(union) == 0x50
    vcpu = bare(kvm.EXIT_XEN, union, wide=True)
    seen: list[Exit] = []

    def sink(event: Exit) -> int:
        seen.append(event)
        return -38

    assert vcpu._xen(sink)
    assert seen == [Hypercall(29, (1, 2, 3, 4, 5), 64, 3)]
    assert kvm.U64.unpack_from(vcpu._run, 0x38)[0] == 2**64 - 38


def test_kvm_exit_xen_of_32_bit_code_has_32_bit_arguments() -> None:
    vcpu = bare(kvm.EXIT_XEN, kvm.RUN_XEN.pack(kvm.XEN_HCALL, 0, 0, 17, 0, 1 << 32 | 6, 2, 3, 4, 5, 6))
    seen: list[Exit] = []
    assert vcpu._xen(seen.append)
    assert seen == [Hypercall(17, (6, 2, 3, 4, 5), 32, 0)]


def test_kvm_exit_xen_of_another_type_is_not_taken_for_a_hypercall() -> None:
    seen: list[Exit] = []
    assert not bare(kvm.EXIT_XEN, kvm.RUN_XEN.pack(2, *(0,) * 10))._xen(seen.append)
    assert isinstance(seen[0], Broken)


@pytest.mark.parametrize("wakes", [False, True])
def test_hlt_tells_whether_an_interrupt_may_end_it(*, wakes: bool) -> None:
    vcpu = bare(kvm.EXIT_HLT, b"")
    vcpu._run[kvm.RUN_IF_FLAG] = wakes
    seen: list[Exit] = []
    assert vcpu._halt(seen.append)
    assert seen == [Halt(wakes)]


def test_a_refused_entry_gives_the_processors_reason() -> None:
    seen: list[Exit] = []
    assert not bare(kvm.EXIT_FAIL_ENTRY, kvm.U64.pack(0x80000021))._fail_entry(seen.append)
    assert isinstance(seen[0], Broken)
    assert "0x80000021" in seen[0].detail


def test_an_unknown_exit_ends_the_vcpu_with_its_number(kvm_engine: KvmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    with Run(kvm_engine, guest_image(0)) as run:
        vcpu = run.vm.vcpus[0]
        monkeypatch.delitem(vcpu._exits, kvm.EXIT_IO)
        vcpu.run(run.sink)
        assert [type(event) for event in run.exits] == [Broken]
        assert f"({kvm.EXIT_IO})" in str(run.exits[0])


def test_a_mapped_file_that_was_cut_is_named(kvm_engine: KvmEngine, tmp_path: Path) -> None:
    path = tmp_path / "module"
    path.write_bytes(bytes(8 * mmap.PAGESIZE))
    fd = os.open(path, os.O_RDONLY)
    image = guest_image(2)  # it reads 0xd0000000: the file is mapped where it reads
    ram = GuestRam(((0, MEMORY), (0xD0000000, 8 * mmap.PAGESIZE)))
    for segment in image.plan.kernel.loads:
        assert ram.write(segment.paddr, image.plan.kernel.source.read(segment.offset, segment.filesz))
    assert ram.map_file(0xD0000000, 8 * mmap.PAGESIZE, fd, 0)
    image = replace(image, ram=ram, files=(FileSource(str(path), fd, identify(fd)),))
    with Run(kvm_engine, image) as run:
        os.truncate(path, 0)
        with pytest.raises(EngineError, match="cut short") as caught:
            run.go()
    assert caught.value.path == str(path)
    assert "--copy" in str(caught.value)


def test_another_failure_of_the_host_names_the_vcpu() -> None:
    vcpu = bare(0, b"")
    vcpu._index = 3
    with pytest.raises(EngineError, match="vCPU 3: input/output error"):
        vcpu._host_failed(OSError(errno.EIO, "gone"))
