"""`--clock instructions`: a guest's time is what it executed, and a run can be repeated to the bit (issue 4)."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from machines import call, run
from pvh.clock import InstructionClock
from pvh.engines.emulator.engine import EmulatorEngine
from pvh.engines.exits import PortOut
from pvh.outcome import Outcome
from pvh.trace import Trace

GUESTS = Path(__file__).parent / "guests"
PVH = [sys.executable, "-m", "pvh", "run", "--engine", "emulator", "--clock", "instructions", "--timeout", "400"]
ARGUMENT = 0x21000
SCHED_OP, POLL = 29, 3
HOUR = 3600 * 10**9
SHOW = "outl %eax, $0xe9;"


class TestInstructionClock:
    def test_it_moves_by_blocks(self) -> None:
        blocks = [0]
        clock = InstructionClock()
        clock.follow(lambda: blocks[0])
        assert clock.now() == 0
        blocks[0] = 5
        assert (clock.now(), clock.now()) == (40, 40)

    def test_it_is_put_forward_and_never_back(self) -> None:
        clock = InstructionClock()
        clock.skip_to(1000)
        clock.skip_to(400)
        assert clock.now() == 1000

    def test_it_goes_on_from_guest_to_guest(self) -> None:
        clock = InstructionClock()
        clock.follow(lambda: 100)
        clock.skip_to(1000)
        clock.follow(lambda: 0)
        assert clock.now() == 1000

    def test_so_many_blocks_reach_a_moment(self) -> None:
        clock = InstructionClock()
        clock.skip_to(16)
        assert [clock.blocks_until(at) for at in (0, 16, 17, 24, 25, 16 + 8 * 10**6)] == [1, 1, 1, 1, 2, 10**6]

    def test_the_wall_clock_begins_with_2020(self) -> None:
        clock = InstructionClock()
        clock.skip_to(7)
        assert clock.wallclock() == 1577836800 * 10**9 + 7


@cache
def engine() -> EmulatorEngine:
    return EmulatorEngine(virtual=True)


def shown(source: str, memory: dict[int, bytes] | None = None) -> tuple[list[int], Outcome]:
    """Run a guest; return the words it gave to port 0xe9, and how it ended."""
    words = list[int]()

    def watch(_vcpu: int, event: object, _answer: int | None) -> None:
        if isinstance(event, PortOut) and event.port == 0xE9:
            words.append(event.value)

    outcome, _ = run(engine(), source, memory or {}, watch=watch)
    return words, outcome


class TestGuest:
    def test_rdtsc_counts_blocks_and_stops(self) -> None:
        """A block is 8 ticks; what stops the processor, as RDTSC itself, is worth 100. Twice the loop is twice that."""
        source = "".join(
            f"rdtsc; movl %eax, %esi; movl ${count}, %ecx; 1: loop 1b; rdtsc; subl %esi, %eax;" + SHOW
            for count in (1000, 2000)
        )
        words, _ = shown(source)
        assert words[1] - words[0] == 1000 * 8
        assert 1000 * 8 + 800 <= words[0] <= 1010 * 8 + 800
        assert shown(source)[0] == words

    def test_rdtscp_is_rdtsc_with_the_processors_number(self) -> None:
        aux = "movl $0xc0000103, %ecx; movl $77, %eax; xorl %edx, %edx; wrmsr;"
        words, _ = shown(aux + "rdtsc; movl %eax, %esi; rdtscp; subl %esi, %eax;" + SHOW + "movl %ecx, %eax;" + SHOW)
        assert 800 <= words[0] < 900
        assert words[1] == 77

    def test_the_tsc_is_an_msr_too(self) -> None:
        words, _ = shown("rdtsc; movl %eax, %esi; movl $0x10, %ecx; rdmsr; subl %esi, %eax;" + SHOW)
        assert 800 <= words[0] < 900

    def test_random_numbers_are_not_offered(self) -> None:
        words, _ = shown(
            "movl $1, %eax; cpuid; movl %ecx, %eax;"
            + SHOW
            + "movl $7, %eax; xorl %ecx, %ecx; cpuid; movl %ebx, %eax;"
            + SHOW
        )
        assert (words[0] >> 30 & 1, words[1] >> 18 & 1) == (0, 0)
        offered = {entry.leaf: entry for entry in EmulatorEngine().cpuid()}
        assert (offered[1].ecx & ~(1 << 31), offered[7].ebx) == (words[0] & ~(1 << 31) | 1 << 30, words[1] | 1 << 18)

    def test_an_hour_of_sleep_is_over_at_once(self) -> None:
        poll = struct.pack("<IIQ", 0, 0, HOUR)
        read = "rdtsc; movl %eax, %esi; movl %edx, %edi;"
        took = "rdtsc; subl %esi, %eax; sbbl %edi, %edx;" + SHOW + "movl %edx, %eax;" + SHOW + "movb $7, %al;"
        words, outcome = shown(read + call(SCHED_OP, POLL, ARGUMENT) + took, {ARGUMENT: poll})
        assert (outcome.ending, outcome.status) == ("exit-port", 7), outcome.reason
        assert HOUR - 10**6 < words[1] << 32 | words[0] < HOUR + 10**6
        assert outcome.seconds < 60

    def test_a_sleep_that_nothing_ends_is_a_hang(self) -> None:
        _, outcome = shown(call(SCHED_OP, POLL, ARGUMENT), {ARGUMENT: bytes(16)})
        assert outcome.ending == "hang"

    def test_a_trace_has_the_guests_time(self, tmp_path: Path) -> None:
        path = tmp_path / "t"
        clock = InstructionClock()
        trace = Trace(str(path), clock.now)
        clock.skip_to(HOUR)
        trace(0, PortOut(1, 1, 1), None)
        assert path.read_text().startswith('{"t": 3600.0, ')


def repeated(tmp_path: Path, *words: str, stdin: bytes | None = None) -> list[bytes]:
    """Run it twice at once, with other seeds and priorities; both must be the same. Return what the guest said.

    The second process is one that the other hinders; what either writes is read by nobody until it ends.
    """
    runs: list[subprocess.Popen[bytes]] = []
    traces = [tmp_path / "first", tmp_path / "second"]
    for seed, trace in enumerate(traces):
        runs.append(
            subprocess.Popen(
                ["nice", "-n", str(seed * 10), *PVH, "--trace", str(trace), *words],
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | {"PYTHONHASHSEED": str(seed + 1), f"PVH_TEST_{'x' * seed * 999}": "moves the stack"},
            )
        )
    told = [process.communicate(stdin) for process in runs]
    endings = [error.splitlines()[-1].partition(b" after ")[0] for _, error in told]
    assert endings == [b"pvh: poweroff"] * 2, told
    hashes = [hashlib.sha256(trace.read_bytes()).hexdigest() for trace in traces]
    assert hashes[0] == hashes[1]
    assert told[0][0] == told[1][0]
    return [told[0][0], traces[0].read_bytes()]


class TestRepeated:
    @pytest.mark.parametrize("vcpus", [1, 2, 4])
    def test_processors_that_interrupt_one_another(self, tmp_path: Path, vcpus: int) -> None:
        said, _ = repeated(tmp_path, "--vcpus", str(vcpus), str(GUESTS / "smp.elf"))
        assert said

    def test_a_linux_to_userspace_and_power_off(self, tmp_path: Path, specimen: Callable[[str], Path]) -> None:
        """What is typed is in a file; the guest sleeps, which takes no time of the host's."""
        typed = tmp_path / "typed"
        typed.write_bytes(b"what was typed\n" * 400)  # more than waits for a guest otherwise
        command = "cat | md5sum; date +%Y-%m-%d; od -xN8 /dev/urandom; sleep 100; echo up $(cut -d. -f1 /proc/uptime)"
        command += "; busybox poweroff -f"
        said, trace = repeated(
            tmp_path, "--input", str(typed), "--busybox", str(specimen("busybox")), "--exec", command,
            str(specimen("vmlinuz-cloud-6.1")),
        )  # fmt: skip
        lines = said.decode().splitlines()
        assert lines[0] == f"{hashlib.md5(typed.read_bytes()).hexdigest()}  -"
        assert lines[1] == "2020-01-01"
        (up,) = [int(line[3:]) for line in lines if line.startswith("up ")]
        assert 100 < up < 110
        assert trace.count(b"\n") > 1000
