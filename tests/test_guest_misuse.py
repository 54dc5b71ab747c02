"""The API as strangers use it: whatever they do works, or is an error of the package that says what to do."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pvh
from pvh.abi.x86 import CR0_PE, CR0_PG
from pvh.errors import UsageError
from test_snapshot import GUESTS

DEMO = pvh.demo_path()
ECHO = str(GUESTS / "echo.elf")  # runs until it is told to end
RAM = 64 << 20
FOR_EVER = bytes.fromhex("ebfe")  # jmp .
# mov al, 'A'; out 0xe9, al; mov al, 10; out 0xe9, al; lidt [0x3000000]; ud2: a triple fault, as the table is empty
FAULTS = bytes.fromhex("b041e6e9 b00ae6e9 0f011d00000003 0f0b")


@pytest.fixture(params=["emulator", "kvm"])
def options(request: pytest.FixtureRequest) -> pvh.BootOptions:
    if request.param == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("no /dev/kvm here")
    return pvh.BootOptions(memory=RAM, engine=request.param, cmdline="words", timeout=60)


def looped(options: pvh.BootOptions, code: bytes = FOR_EVER) -> pvh.Guest:
    """Return a paused guest that executes code instead of its own."""
    guest = pvh.boot(DEMO, options, paused=True)
    guest.write(guest.registers().rip, code)
    return guest


def test_stopped_closed_and_ended_guests_say_so(options: pvh.BootOptions) -> None:
    guest = pvh.boot(DEMO, options, paused=True)
    moment = guest.snapshot()
    assert guest.stop() == guest.stop() == guest.wait(0)
    for end in (guest.pause, guest.step, guest.snapshot, guest.clone):
        with pytest.raises(pvh.GuestEnded, match=r"interrupted, it was stopped"):
            end()
    guest.console.write("nobody reads this")
    assert guest.registers().rip == guest.plan.entry
    guest.restore(moment)
    assert guest.wait(20).ending == "poweroff"
    guest.close()
    guest.close()
    calls: list[Callable[[], object]] = [
        guest.step, guest.snapshot, guest.clone, guest.registers, guest.explain, lambda: guest.restore(moment),
        lambda: guest.read(0, 1), lambda: guest.write(0, b"x"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(UsageError, match="this guest was closed"):
            call()
    assert guest.stop().ending == "poweroff"
    assert "Powering off" in guest.console.text
    assert list(guest.events()) == []
    assert "poweroff" in repr(guest)


@pytest.mark.parametrize(
    ("address", "size"), [(-1, 4), (RAM - 1, 2), (1 << 40, 1), (1 << 64, 1), (1 << 70, 1), (0, -1), (0, 1 << 70)]
)
@pytest.mark.parametrize("linear", [False, True])
def test_memory_that_is_not_there_is_refused(address: int, size: int, *, linear: bool) -> None:
    """Also linear addresses before paging, where 32 bits are all there is."""
    with pvh.boot(DEMO, pvh.BootOptions(memory=RAM, engine="emulator"), paused=True) as guest:
        assert guest.registers().cr0 & (CR0_PE | CR0_PG) == CR0_PE
        with pytest.raises(UsageError, match="no guest memory"):
            guest.read(address, size, linear=linear)
        if 0 <= size <= 2:
            with pytest.raises(UsageError, match="no guest memory"):
                guest.write(address, bytes(size), linear=linear)
        assert guest.read(RAM - 4, 4, linear=linear) == bytes(4)
        assert guest.read(0, 0, linear=linear) == b""


NONSENSE: list[tuple[str, Callable[[Any], object]]] = [
    ("address cannot be of type str", lambda guest: guest.read("0x1000", 4)),
    ("size cannot be of type float", lambda guest: guest.read(0, 4.0)),
    ("data cannot be of type str", lambda guest: guest.write(0x1000, "text")),
    (r"vcpu is out of range \(found -1; wanted 0\)", lambda guest: guest.registers(-1)),
    (r"vcpu is out of range \(found 1; wanted 0\)", lambda guest: guest.step(1)),
    ("vcpu cannot be of type NoneType", lambda guest: guest.read(0, 4, linear=True, vcpu=None)),
    ("nothing to wait for", lambda guest: guest.console.expect()),
    ("a pattern cannot be of type list", lambda guest: guest.console.expect(["one", "two"])),
    ("a compiled pattern cannot be of type str", lambda guest: guest.console.expect(re.compile("x"))),
    ("what is typed cannot be of type int", lambda guest: guest.console.write(3)),
    ("timeout is no time", lambda guest: guest.wait(float("nan"))),
    ("timeout is no time", lambda guest: guest.console.expect("x", timeout=float("nan"))),
    ("timeout cannot be of type str", lambda guest: guest.console.read(timeout="1")),
    ("snapshot cannot be of type Guest", lambda guest: guest.restore(guest)),
    ("snapshot cannot be of type int", lambda _: pvh.resume(5)),  # type: ignore[arg-type]
    ("a kernel cannot be of type bytes", lambda _: pvh.boot(DEMO.encode())),  # type: ignore[arg-type]
    ("a kernel cannot be of type int", lambda _: pvh.read_kernel(0)),  # type: ignore[arg-type]
    ("a kernel cannot be of type str", lambda _: pvh.plan(DEMO, pvh.BootOptions())),  # type: ignore[arg-type]
    ("options cannot be of type dict", lambda _: pvh.boot(DEMO, {"memory": RAM})),  # type: ignore[arg-type]
    ("a command cannot be of type list", lambda _: pvh.run_command(DEMO, ["ls"])),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("told", "call"), NONSENSE, ids=[told for told, _ in NONSENSE])
def test_what_makes_no_sense_is_named(told: str, call: Callable[[Any], object]) -> None:
    with pvh.boot(DEMO, pvh.BootOptions(memory=RAM, engine="emulator"), paused=True) as guest:
        with pytest.raises(UsageError, match=told):
            call(guest)
        guest.resume()
        assert guest.wait(20).ending == "poweroff", "and the guest is none the worse for it"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("memory", value) for value in ("64M", 64e6, None)),
        *(("vcpus", value) for value in (0, -1, "2")),
        *(("timeout", value) for value in (-1, float("nan"), float("inf"), "5")),
        *(("modules", value) for value in ("initrd", ("initrd",), [pvh.ModuleSpec(DEMO)], (pvh.ModuleSpec(5),))),  # type: ignore[arg-type]
        ("cmdline", b"words"), ("engine", "qemu"), ("platform", "pc"), ("abi", "v2"), ("clock", "sun"),
        ("trace", Path("x")), ("core", 5), ("variation", None), ("copy", "no"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_named(field: str, value: Any) -> None:
    options: Any = pvh.BootOptions(memory=RAM, engine="emulator")
    with pytest.raises(UsageError, match=field.removesuffix("s")):
        pvh.boot(DEMO, replace(options, **{field: value}))


@pytest.mark.parametrize("timeout", [0, -1, -1e300])
def test_a_time_that_is_over_is_no_wait(timeout: float, options: pvh.BootOptions) -> None:
    with looped(options) as guest:
        guest.resume()
        with pytest.raises(pvh.Timeout):
            guest.wait(timeout)
        with pytest.raises(pvh.Timeout):
            guest.console.expect("x", timeout=timeout)
        assert guest.console.read(timeout=timeout) == b""


@pytest.mark.parametrize("timeout", [None, 1e300, float("inf")])
def test_a_time_without_end_waits(timeout: float | None, options: pvh.BootOptions) -> None:
    with pvh.boot(DEMO, options, paused=True) as guest:
        with guest.clone(paused=True) as other:
            threading.Timer(0.1, other.resume).start()
            assert other.console.read(timeout=timeout)
        threading.Timer(0.1, guest.resume).start()
        guest.console.expect("Powering off", timeout=timeout)
        assert guest.wait(timeout).ending == "poweroff"


def test_a_guest_that_faults_is_told_with_its_outcome_and_last_words(options: pvh.BootOptions) -> None:
    with looped(options, FAULTS) as guest:
        guest.resume()
        with pytest.raises(pvh.GuestEnded, match=r"before it said 'login:': triple-fault, .*'A\\n'") as ended:
            guest.console.expect("login:", timeout=20)
        assert ended.value.outcome == guest.outcome
        assert ended.value.said == "A\n"


def test_an_exception_leaves_the_block_and_ends_the_guest(options: pvh.BootOptions) -> None:
    before = threading.active_count()
    guest = looped(options)
    guest.resume()
    with pytest.raises(ZeroDivisionError), guest:
        raise ZeroDivisionError
    assert guest.outcome
    assert guest.outcome.ending == "interrupted"
    assert threading.active_count() == before


def test_a_snapshot_is_for_guests_it_fits(options: pvh.BootOptions) -> None:
    """One plan, whoever made it; any other would go on as a guest that its plan does not describe."""
    with pvh.boot(DEMO, options, paused=True) as guest:
        with pvh.boot(DEMO, options, paused=True) as same:
            moment = same.snapshot()
        guest.restore(moment)
        strange = [(ECHO, options), (DEMO, replace(options, memory=RAM * 2)), (DEMO, replace(options, cmdline="x"))]
        for kernel, others in strange:
            with pvh.boot(kernel, others, paused=True) as other:
                moment = other.snapshot()
            with pytest.raises(UsageError, match=r"of another guest .*pvh\.resume"):
                guest.restore(moment)
        guest.resume()
        assert guest.wait(20).ending == "poweroff"


def test_a_snapshot_of_another_engine_is_refused() -> None:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("no /dev/kvm here")
    options = pvh.BootOptions(memory=RAM, engine="kvm")
    with pvh.boot(DEMO, options, paused=True) as there, pvh.boot(DEMO, replace(options, engine="emulator")) as here:
        with pytest.raises(UsageError, match=r"another engine \(found kvm; wanted emulator\)"):
            here.restore(there.snapshot())
        assert here.wait(20).ending == "poweroff"


def test_clones_of_clones_outlive_their_parents(options: pvh.BootOptions) -> None:
    with pvh.boot(DEMO, options, paused=True) as guest:
        child = guest.clone(paused=True)
        grandchild = child.clone(paused=True)
        guest.write(guest.plan.start_info.cmdline_paddr, b"WORDS")
    child.close()
    gc.collect()
    with grandchild, grandchild.clone() as last:
        grandchild.resume()
        assert grandchild.wait(20).ending == last.wait(20).ending == "poweroff"
        assert '"words"' in grandchild.console.text
        assert grandchild.console.text == last.console.text


def test_events_may_be_left_at_any_time(options: pvh.BootOptions) -> None:
    with pvh.boot(DEMO, options, paused=True) as guest:
        first, second, _ = guest.events(), guest.events(), guest.events()
        guest.resume()
        one = next(first)
        del first
        assert next(second) == one
        guest.wait(20)
    assert len(list(second)) > 10, "those that waited are still there, and there is an end"
    assert next(second, None) is None


def test_two_guests_at_once_do_not_meet(options: pvh.BootOptions) -> None:
    with pvh.boot(DEMO, options) as one, pvh.boot(DEMO, replace(options, cmdline="others")) as other:
        other.console.expect('"others"', timeout=20)
        one.console.expect('"words"', timeout=20)
        assert one.wait(20).ending == other.wait(20).ending == "poweroff"


def test_threads_may_share_a_guest_and_close_it_under_each_other(options: pvh.BootOptions) -> None:
    guest, errors = pvh.boot(ECHO, options), list[BaseException]()

    def use() -> None:
        try:
            while True:
                guest.read(0x100000, 1 << 20)
                guest.registers()
                guest.pause()
                guest.resume()
                guest.console.write("x\n")
        except (pvh.GuestEnded, UsageError):  # it was closed
            pass
        except BaseException as error:  # noqa: BLE001 - whatever it is, this test is to tell
            errors.append(error)

    def expect() -> None:
        with pytest.raises(pvh.GuestEnded):
            guest.console.expect("never said", timeout=60)
        guest.wait(60)

    threads = [threading.Thread(target=body) for body in (use, use, use, expect)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    guest.close()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []


PROGRAM = """
import sys, pvh
guest = pvh.boot(sys.argv[2], pvh.BootOptions(memory=64 << 20, engine=sys.argv[1]))
if len(sys.argv) > 3:
    with guest:
        print("now", flush=True)
        guest.console.expect("never said", timeout=60)
"""


def test_a_program_may_end_without_a_word_to_its_guests(options: pvh.BootOptions) -> None:
    words = [sys.executable, "-c", PROGRAM, options.engine, ECHO]
    done = subprocess.run(words, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_ctrl_c_ends_what_waits(options: pvh.BootOptions) -> None:
    words = [sys.executable, "-c", PROGRAM, options.engine, ECHO, "wait"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout
        assert program.stdout.readline() == b"now\n"
        program.send_signal(signal.SIGINT)
        _, said = program.communicate(timeout=20)
    assert said.splitlines()[-1] == b"KeyboardInterrupt"
    assert said.count(b"Traceback") == 1
