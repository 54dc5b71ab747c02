"""What KVM keeps of a vCPU comes back: keeping.py, and what takes pytest or an assembler."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from engines.flat import assemble
from engines.kvm.keeping import KEEPING, heeds_tsc_offsets, opened
from pvh.engines.exits import Exit, PortIn, PortOut
from pvh.engines.kvm import ioctl as kvm
from pvh.engines.kvm import kept_state
from pvh.engines.kvm.engine import KvmEngine
from pvh.errors import EngineError


@pytest.mark.parametrize("keeps", KEEPING, ids=lambda keeps: keeps.__name__)
def test_it_comes_back(kvm_engine: KvmEngine, keeps: Callable[[KvmEngine], None]) -> None:
    if keeps.__name__.startswith("time") and not heeds_tsc_offsets(kvm_engine):
        pytest.skip("guests of this KVM read the host's own TSC")
    keeps(kvm_engine)


def test_what_a_local_apic_would_not_take_waits_on(kvm_engine: KvmEngine) -> None:
    with opened(kvm_engine) as one, opened(kvm_engine) as other:
        before = one.capture()
        one.vcpus[0].raise_vector(0x51)
        after = one.capture()
        other.apply(after)
        assert other.capture()["held"] == [(0, 0x51)]
        other.apply(before)
        assert other.capture()["held"] == []


def test_an_exit_that_was_not_answered_is_not_completed_later(kvm_engine: KvmEngine) -> None:
    seen: list[Exit] = []

    def failing(_: Exit) -> int:
        raise BrokenPipeError

    def sink(event: Exit) -> int:
        seen.append(event)
        if isinstance(event, PortOut):
            vm.vcpus[0].kick()
        return 7

    with opened(kvm_engine, assemble("movb $1, %al; inb $0x42, %al; outb %al, $0xf4; hlt")) as vm:
        state = vm.capture()
        with pytest.raises(BrokenPipeError):
            vm.vcpus[0].run(failing)
        vm.apply(state)
        vm.vcpus[0].run(sink)
    assert seen == [PortIn(0x42, 1), PortOut(0xF4, 1, 7)]


@pytest.mark.parametrize(
    ("request_", "what"),
    [(kept_state._GET_DEVICE_ATTR, "the TSC's offset"), (0x8188AEA6, "extended control registers")],
)
def test_what_a_kvm_does_not_have_is_named(
    kvm_engine: KvmEngine, monkeypatch: pytest.MonkeyPatch, request_: int, what: str
) -> None:
    call = kvm.call

    def without(fd: int, request: int, argument: int | bytes | bytearray = 0) -> int:
        if request == request_:
            raise OSError(errno.ENOTTY, "")
        return call(fd, request, argument)

    with opened(kvm_engine) as vm:
        monkeypatch.setattr(kvm, "call", without)
        with pytest.raises(EngineError, match=f"KVM refused reading (the )?{what}"):
            vm.capture()
