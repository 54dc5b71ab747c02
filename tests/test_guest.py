"""A guest as a program has it."""

from __future__ import annotations

import gc
import os
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

import pvh
from pvh.abi.x86 import CR0_PE
from pvh.engines.exits import Hypercall, PortOut
from pvh.errors import UsageError
from test_snapshot import GUESTS

DEMO = pvh.demo_path()
OPTIONS = pvh.BootOptions(memory=64 << 20, engine="emulator", cmdline="words")
ECHO = str(GUESTS / "echo.elf")


def test_what_a_guest_says_is_waited_for_read_once_and_kept() -> None:
    with pvh.boot(DEMO, OPTIONS) as guest:
        found = guest.console.expect("no such", re.compile(rb'line: "(\w+)"(x)?'), b"Xen 4", timeout=20)
        assert (found.index, found.groups, found.text) == (1, (b"words", None), b'line: "words"')
        assert found.before.startswith(b"Hello from PVH")
        guest.wait(20)
        rest = guest.console.read()
        assert rest.endswith(b"Powering off\n")
        assert guest.console.read(timeout=5) == b""
        assert guest.console.text.encode() == found.before + found.text + rest


def test_a_guest_that_ends_first_is_told_with_its_last_words() -> None:
    with pvh.boot(DEMO, OPTIONS) as guest, pytest.raises(pvh.GuestEnded) as ended:
        guest.console.expect("never said", timeout=20)
    assert ended.value.outcome.ending == "poweroff"
    assert "before it said 'never said': poweroff" in str(ended.value)
    assert "Powering off" in str(ended.value)


def test_a_guest_that_says_nothing_in_time_is_told_too() -> None:
    with pvh.boot(DEMO, OPTIONS, paused=True) as guest:
        with pytest.raises(pvh.Timeout, match=r"did not say 'x' in 0\.05 s \(found nothing on its console\)"):
            guest.console.expect("x", timeout=0.05)
        with pytest.raises(pvh.Timeout, match="has not ended in"):
            guest.wait(0.05)
        assert repr(guest).endswith("on emulator: paused>")


def test_what_is_typed_arrives() -> None:
    with pvh.boot(ECHO, OPTIONS) as guest:
        guest.console.write("first\n")
        guest.console.expect("first", timeout=20)
        guest.console.write(b"second\n")
        guest.console.expect(b"second", timeout=20)


def test_a_paused_guest_executes_one_instruction_at_a_time() -> None:
    """The demo's entry: flat protected mode, EBX at hvm_start_info (docs/misc/pvh.pandoc)."""
    with pvh.boot(DEMO, OPTIONS, paused=True) as guest:
        before = guest.registers()
        assert before.rip == guest.plan.entry
        assert before.gprs[3] == guest.plan.start_info.paddr
        assert before.cr0 & CR0_PE
        seen = [guest.step().rip for _ in range(40)]
        assert len(set(seen)) > 5
        assert seen[0] != before.rip
        assert guest.registers().rip == seen[-1]
        guest.resume()
        with pytest.raises(UsageError, match="cannot be stepped"):
            guest.step()
        assert guest.wait(20).ending == "poweroff"
        assert guest.console.text.endswith("Powering off\n")


def test_memory_is_read_and_written_at_physical_and_linear_addresses() -> None:
    with pvh.boot(DEMO, OPTIONS, paused=True) as guest:
        address = guest.plan.start_info.cmdline_paddr
        assert guest.read(address, 6) == guest.read(address, 6, linear=True) == b"words\0"
        guest.write(address, b"W")
        guest.write(address + 1, b"O", linear=True)
        for nowhere in (1 << 39, guest.plan.options.memory - 2):
            with pytest.raises(UsageError, match="no guest memory"):
                guest.read(nowhere, 4)
            with pytest.raises(UsageError, match="no guest memory"):
                guest.write(nowhere, b"1234")
        guest.resume()
        guest.wait(20)
        assert '"WOrds"' in guest.console.text
        assert guest.read(address, 2) == b"WO"


def test_every_exit_is_an_event() -> None:
    with pvh.boot(DEMO, OPTIONS, paused=True) as guest:
        events, later = guest.events(), guest.events()
        guest.resume()
        outcome = guest.wait(20)
        told = list(events)
        assert len(told) == sum(count for _, count in outcome.exits)
        assert {Hypercall, PortOut} & {type(event.exit) for event in told}
        assert list(later) == told


def test_a_guest_goes_on_from_a_snapshot_however_it_went_on_since() -> None:
    with pvh.boot(DEMO, OPTIONS, paused=True) as guest:
        for _ in range(100):
            guest.step()
        moment, at, before = guest.snapshot(), guest.registers(), guest.console.text
        guest.resume()
        guest.wait(20)
        first = guest.console.text.removeprefix(before)
        with pytest.raises(pvh.GuestEnded):
            guest.snapshot()
        guest.restore(moment)  # after its end
        assert guest.wait(20).ending == "poweroff"
        assert guest.console.text == first
        guest.restore(moment)  # while it runs
        guest.restore(moment)
        assert guest.wait(20).ending == "poweroff"
        assert guest.console.text == first
        with pvh.resume(moment, paused=True) as other:
            assert other.registers() == at
            with other.clone() as third:
                assert third.wait(20).ending == "poweroff"
                assert third.console.text == first
            other.restore(moment)
            assert other.registers() == at


def test_clones_run_at_once_and_do_not_meet() -> None:
    with pvh.boot(DEMO, OPTIONS, paused=True) as guest:
        address = guest.plan.start_info.cmdline_paddr
        moment = guest.snapshot()
        others = [pvh.resume(moment, paused=True) for _ in range(5)]
        for number, other in enumerate(others):
            other.write(address, b"%d" % number)
        for other in others:
            other.resume()
        for number, other in enumerate(others):
            with other:
                other.console.expect(f'"{number}ords"', timeout=30)
        assert guest.read(address, 5) == b"words"


def test_stopping_and_closing() -> None:
    before = threading.active_count()
    guest = pvh.boot(DEMO, OPTIONS, paused=True)
    outcome = guest.stop()
    assert outcome.ending == "interrupted"
    assert guest.outcome == outcome == guest.stop()
    guest.close()
    guest.close()
    with pytest.raises(UsageError, match="was closed"):
        guest.read(0, 1)
    assert threading.active_count() == before


def test_boot_takes_what_the_pipeline_makes_and_options_once() -> None:
    kernel = pvh.read_kernel(DEMO)
    made = pvh.plan(kernel, OPTIONS)
    for what in (kernel, made, pvh.build(made)):
        with pvh.boot(what, OPTIONS if isinstance(what, pvh.Kernel) else None) as guest:
            assert guest.wait(20).ending == "poweroff"
    with pytest.raises(UsageError, match="have their options already"):
        pvh.boot(made, OPTIONS)


def test_a_core_is_written_at_the_end_or_its_absence_is_told_once(tmp_path: Path) -> None:
    path, nowhere = tmp_path / "core", str(tmp_path / "no" / "core")
    with pvh.boot(DEMO, replace(OPTIONS, core=str(path))) as guest:
        outcome = guest.wait(20)
        assert outcome.cpu
        assert outcome.cpu.rip.to_bytes(8, "little") in path.read_bytes()[:8192], "NT_PRSTATUS is among the notes"
    with pvh.boot(DEMO, replace(OPTIONS, core=nowhere)) as guest:
        with pytest.raises(UsageError, match="cannot write the core: no such file"):
            guest.wait(20)
        assert guest.wait(20).ending == "poweroff"
    with pytest.raises(UsageError, match="cannot write the core"), pvh.boot(DEMO, replace(OPTIONS, core=nowhere)):
        pass
    with pytest.raises(ZeroDivisionError), pvh.boot(DEMO, replace(OPTIONS, core=nowhere)):  # the first error counts
        raise ZeroDivisionError


@pytest.mark.parametrize("engine", ["emulator", "kvm"])
def test_guests_leave_no_descriptors_behind(engine: Literal["emulator", "kvm"]) -> None:
    """Fifty of them, and clones, and boots that fail: whoever boots guests all day has 1024 at most."""
    if engine == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("no /dev/kvm here")
    options = replace(OPTIONS, engine=engine)
    image = pvh.build(pvh.plan(pvh.read_kernel(DEMO), options))  # whose file is the record's, and open as long
    image.ram.close()

    def descriptors(count: int, run: Callable[[], None]) -> int:
        for _ in range(count):
            run()
        return len(os.listdir("/proc/self/fd"))

    def once() -> None:
        with pvh.boot(image.plan) as guest:
            guest.wait(20)

    def others() -> None:
        with pvh.boot(DEMO, options, paused=True) as guest, guest.clone(paused=True) as other:
            other.clone(paused=True).close()
        with pytest.raises(UsageError):
            pvh.boot(DEMO, replace(options, trace="/nonexistent/trace"))

    gc.collect()
    before = descriptors(1, once)
    assert descriptors(50, once) <= before
    descriptors(5, others)
    gc.collect()
    assert descriptors(1, once) <= before
