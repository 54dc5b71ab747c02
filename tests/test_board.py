"""What a guest's exits reach, by platform (facts/xen-abi.md, 3 and 6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from pvh.abi.hypercall import XEN_VERSION
from pvh.build.cpu_state import CpuState, SegmentRegister
from pvh.engines.exits import Exit, Hypercall, MmioRead, MmioWrite, MsrRead, MsrWrite, PortIn, PortOut
from pvh.engines.scripted import ScriptedEngine, ScriptedVm
from pvh.plan.options import Platform
from pvh.xenstore.watches import Watch
from test_machine import EMULATOR, FLAT, LEAVE, Bench

LONG = replace(FLAT, cr0=0x80000011, efer=0x500, cs=SegmentRegister(8, 0, 0xFFFFFFFF, 0xA9B))
PAGE = 0x9000


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    for ram in made.rams:
        ram.close()


def guest(bench: Bench, *script: Exit, platform: Platform = "xen", own_lapic: bool = True) -> ScriptedVm:
    machine = bench.machine(*script, LEAVE, platform=platform, traits=None if own_lapic else EMULATOR)
    machine.run()
    assert isinstance(machine.engine, ScriptedEngine)
    return machine.engine.vms[0]


def ask(bench: Bench, *script: Exit, platform: Platform = "xen", own_lapic: bool = True) -> list[int | None]:
    return [reply.answer for reply in guest(bench, *script, platform=platform, own_lapic=own_lapic).replies[:-1]]


def test_unclaimed_ports_and_addresses_read_as_ones(bench: Bench) -> None:
    assert ask(bench, PortIn(0x10, 2), MmioRead(0xFED00000, 4), MmioRead(0xFEE00020, 8)) == [
        0xFFFF,
        0xFFFFFFFF,
        2**64 - 1,
    ]


def test_the_counter_of_no_pit_is_not_taken_for_one_that_runs(bench: Bench) -> None:
    """Linux on AMD asks whether its high byte is 0xff, and then for how long (tsc.c, quick_pit_calibrate)."""
    assert ask(bench, PortOut(0x43, 1, 0xB0), PortOut(0x42, 1, 0xFF), PortIn(0x42, 1)) == [None, None, 0]


def test_the_uart_is_on_platform_bare_alone(bench: Bench) -> None:
    assert ask(bench, PortIn(0x3FD, 1), platform="bare") == [0x60]
    assert ask(bench, PortIn(0x3FD, 1), platform="xen") == [0xFF]


def test_xen_is_on_platform_xen_alone(bench: Bench) -> None:
    calls = [Hypercall(XEN_VERSION, (0, 0, 0, 0, 0), bits, 0) for bits in (64, 32)]
    assert ask(bench, *calls) == [4 << 16 | 20] * 2
    assert ask(bench, *calls, platform="bare") == [2**64 - 38, 2**32 - 38]


class TestHypercallPage:
    def test_the_msr_reads_0_and_writing_it_fills_the_page(self, bench: Bench) -> None:
        vm = guest(bench, MsrRead(0x40000000), MsrWrite(0x40000000, PAGE))
        assert [reply.answer for reply in vm.replies[:2]] == [0, 0]
        page = vm.ram.read(PAGE, 4096)
        assert page is not None
        assert page[34 * 32 : 34 * 32 + 5] == b"\xb8\x22\0\0\0"
        assert vm.changed == [(PAGE, 4096)]

    @pytest.mark.parametrize("value", [PAGE | 1, PAGE | 0xFFF, 1 << 20, 0xFEE00000, 1 << 52, 2**64 - 4096])
    def test_another_page_index_or_no_memory_is_gp(self, bench: Bench, value: int) -> None:
        vm = guest(bench, MsrWrite(0x40000000, value))
        assert vm.replies[0].answer is None
        assert vm.changed == []

    @pytest.mark.parametrize("index", [0x40000001, 0x400002FF, 0x40000200, 0x10])
    def test_other_msrs_are_gp(self, bench: Bench, index: int) -> None:
        assert ask(bench, MsrRead(index), MsrWrite(index, 0)) == [None, None]

    def test_platform_bare_has_none(self, bench: Bench) -> None:
        assert ask(bench, MsrRead(0x40000000), MsrWrite(0x40000000, PAGE), platform="bare") == [None, None]

    @pytest.mark.parametrize(("state", "word"), [(LONG, 8), (FLAT, 4)], ids=["64-bit", "32-bit"])
    def test_writing_it_latches_the_width_of_shared_info(self, bench: Bench, state: CpuState, word: int) -> None:
        machine = bench.machine(state, MsrWrite(0x40000000, PAGE), LEAVE)
        machine.run()
        domain = machine._board.domain
        assert domain is not None
        assert domain.shared.layout.word == word


class TestLocalApic:
    """For engines that have none; one APIC for each vCPU at 0xfee00000."""

    def test_registers_are_32_bits_on_16_byte_boundaries(self, bench: Bench) -> None:
        script = (
            MmioWrite(0xFEE00080, 4, 0x5A),
            MmioRead(0xFEE00080, 4),
            MmioRead(0xFEE00030, 1),
            MmioRead(0xFEE00032, 2),
        )
        assert ask(bench, *script, own_lapic=False)[1:] == [0x5A, 0x14, 0x5]

    def test_stores_between_registers_are_dropped(self, bench: Bench) -> None:
        assert ask(bench, MmioWrite(0xFEE00084, 4, 0x5A), MmioRead(0xFEE00080, 4), own_lapic=False)[1] == 0

    def test_its_page_ends(self, bench: Bench) -> None:
        assert ask(bench, MmioRead(0xFEE01000, 4), MmioRead(0xFEDFFFFC, 4), own_lapic=False) == [0xFFFFFFFF] * 2

    def test_vectors_reach_the_processor_one_priority_at_a_time(self, bench: Bench) -> None:
        enable, to_self = MmioWrite(0xFEE000F0, 4, 0x1FF), [MmioWrite(0xFEE00300, 4, 1 << 18 | v) for v in (0x50, 0x41)]
        assert guest(bench, enable, *to_self, own_lapic=False).vectors == [(0, 0x50)]
        end = MmioWrite(0xFEE000B0, 4, 0)
        assert guest(bench, enable, *to_self, end, own_lapic=False).vectors == [(0, 0x50), (0, 0x41)]


def test_a_wider_out_to_the_debug_console_says_one_byte(bench: Bench) -> None:
    ask(bench, PortOut(0xE9, 4, 0x44434241))
    assert bench.said == b"A"


def test_a_guest_on_xen_that_watches_control_shutdown_is_asked_to_power_off(bench: Bench) -> None:
    """tests/xen/test_xenstore.py has the guest's side of it."""
    machine = bench.machine(LEAVE)
    assert machine._board.domain
    assert not machine._board.ask_to_power_off()
    xenstore = machine._board.domain.xenstore
    assert xenstore.access.read("control/shutdown") == b""
    store = xenstore.access._store
    store.guest.watches.add(Watch("/local/domain/1/control/shutdown", b"token"))
    assert machine._board.ask_to_power_off()
    assert xenstore.access.read("control/shutdown") == b"poweroff"


def test_a_guest_on_bare_hardware_cannot_be_asked(bench: Bench) -> None:
    assert not bench.machine(LEAVE, platform="bare")._board.ask_to_power_off()
