"""The remote protocol: what real gdb makes of it, and that nothing sent to it does harm."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdb.fake import MEMORY, FakeTarget, Served, state
from pvh.gdb.packets import INTERRUPT, MOST, Reader, framed, unescaped
from pvh.gdb.registers import LAYOUTS
from pvh.gdb.session import Session
from pvh.gdb.target import Stop


def gdb(target: FakeTarget, folder: Path, *commands: str) -> str:
    """Have gdb do something at a machine; return what it says."""
    if shutil.which("gdb") is None:
        pytest.skip("no gdb here")
    served = Served(target, folder)
    words = ["gdb", "-nx", "-batch", "-ex", f"target remote {served.path}"]
    for command in commands:
        words += ["-ex", command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    served.close()
    return done.stdout + done.stderr


def test_registers_of_32_bit_code(tmp_path: Path) -> None:
    said = gdb(
        FakeTarget(32), tmp_path, "print/x $ebx", "print $eip", "print/x $cr0", "print/x $cs", "info registers esp"
    )
    assert "$1 = 0x3333" in said
    assert "0x1000" in said
    assert "$3 = 0x1\n" in said
    assert "$4 = 0x8" in said
    assert "0x4444" in said


def test_registers_of_64_bit_code_read_and_written(tmp_path: Path) -> None:
    target = FakeTarget(64)
    said = gdb(target, tmp_path, "print/x $r15", "print/x $fs_base", "set $rbx = 0x123456789a", "print/x $efer",
               "set $rip = 0x1010", "x/i $pc", "print $st0")  # fmt: skip
    assert "$1 = 0xffff" in said
    assert "$2 = 0x1234" in said
    assert "$3 = 0x500" in said
    assert target.states[0].gprs[3] == 0x123456789A
    assert target.states[0].rip == 0x1010
    assert "0x1010" in said
    assert "unavailable" in said


def test_memory_is_read_and_written(tmp_path: Path) -> None:
    target = FakeTarget()
    target.memory[0x100:0x104] = b"\x78\x56\x34\x12"
    said = gdb(target, tmp_path, "x/wx 0x100", "set *(char*)0x200 = 7", "x/bx 0x5000", "set *(char*)0x5000 = 7")
    assert "0x12345678" in said
    assert target.memory[0x200] == 7
    assert said.count("Cannot access memory at address 0x5000") == 2


def test_breakpoints_steps_and_threads(tmp_path: Path) -> None:
    target = FakeTarget()
    said = gdb(target, tmp_path, "break *0x1234", "hbreak *0x1300", "continue", "stepi", "print $pc", "continue",
               "info threads", "thread 2", "print $pc", "delete", "monitor hello world")  # fmt: skip
    assert "Breakpoint 1, 0x00001234" in said
    assert "(void (*)()) 0x1235" in said
    assert "Breakpoint 2, 0x00001300" in said
    assert "(running)" in said
    assert "(down)" in said
    assert "(void (*)()) 0x2000" in said
    assert "you said hello world" in said
    assert target.places == frozenset()


def test_too_many_breakpoints_are_refused_and_the_others_stay() -> None:
    ours, theirs = socket.socketpair()
    target = FakeTarget()
    theirs.sendall(b"".join(framed(b"Z0,%x,1" % place) for place in range(9)))
    theirs.shutdown(socket.SHUT_WR)
    places: list[frozenset[int]] = []
    original = target.break_at

    def break_at(addresses: frozenset[int]) -> bool:
        places.append(addresses)
        return original(addresses)

    target.break_at = break_at  # type: ignore[method-assign]
    Session(ours, target, Stop()).serve()
    said = theirs.recv(4096)
    assert said.count(framed(b"OK")) == 8
    assert said.count(framed(b"E01")) == 1
    assert places[-2] == frozenset(range(8))
    assert places[-1] == frozenset(), "whoever leaves leaves none behind"
    ours.close()
    theirs.close()


def test_the_end_of_the_run_is_an_exit(tmp_path: Path) -> None:
    target = FakeTarget()
    target.last = 1
    said = gdb(target, tmp_path, "continue")
    assert "exited with code 07" in said
    assert "exit port 0xf4" in said


def test_an_interrupt_stops_a_machine_that_runs() -> None:
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    target = FakeTarget()
    theirs.sendall(framed(b"vCont;c") + INTERRUPT)
    theirs.shutdown(socket.SHUT_WR)
    assert Session(ours, target, Stop()).serve() == "gone"
    assert framed(b"T02thread:2;") in theirs.recv(4096)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("packet", [b"vCont;", b"vCont;x", b"vCont;c:ffff", b"vCont;s:ffff", b"vKill;zz", b"vKill;"])
def test_what_is_no_order_moves_nothing(packet: bytes) -> None:
    ours, theirs = socket.socketpair()
    target = FakeTarget()
    target.last = 0  # its next run would be its last
    theirs.sendall(framed(packet))
    theirs.shutdown(socket.SHUT_WR)
    assert Session(ours, target, Stop()).serve() == "gone"
    assert theirs.recv(4096) == b"+" + framed(b"E01")
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    ("packet", "how"), [(b"k", "killed"), (b"vKill;1", "killed"), (b"D", "detached"), (b"", "gone")]
)
def test_a_debugger_leaves_in_one_of_three_ways(packet: bytes, how: str) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(framed(packet))
    theirs.shutdown(socket.SHUT_WR)
    assert Session(ours, FakeTarget(), Stop()).serve() == how
    ours.close()
    theirs.close()


@pytest.mark.parametrize("bits", [32, 64])
def test_the_description_is_well_formed_and_says_each_size(bits: int) -> None:
    layout = LAYOUTS[bits]
    tree = ET.fromstring(layout.description().split("\n", 2)[2])
    sizes = [int(reg.get("bitsize", "0")) for reg in tree.iter("reg")]
    assert sizes == [8 * register.size for register in layout.registers]
    assert len(layout.pack(state(bits, 0))) == sum(sizes) // 4
    assert len({reg.get("name") for reg in tree.iter("reg")}) == len(sizes)


def test_whoever_sees_32_bits_keeps_them_when_the_code_becomes_64_bit() -> None:
    ours, theirs = socket.socketpair()
    target = FakeTarget(32)
    theirs.sendall(framed(b"g"))
    session = Session(ours, target, Stop())
    target.set_state(0, state(32, 0))
    theirs.sendall(framed(b"s") + framed(b"g"))
    original = target.step

    def step(vcpu: int) -> None:
        original(vcpu)
        target.states[0] = state(64, 0x1001)

    target.step = step  # type: ignore[method-assign]
    theirs.shutdown(socket.SHUT_WR)
    session.serve()
    said = theirs.recv(1 << 16)
    answers = [part.partition(b"#")[0] for part in said.split(b"$")[1:]]
    assert len(answers[0]) == len(answers[-1])
    assert b"64-bit code now" in bytes.fromhex(answers[1][1:].decode()), "before the step's end is told"
    ours.close()
    theirs.close()


def joined(first: bytes, rest: bytes) -> bytes:
    return framed(first + rest)


@given(st.lists(st.one_of(
    st.binary(max_size=40),
    st.builds(framed, st.binary(max_size=60)),
    st.builds(
        joined,
        st.sampled_from([b"m", b"M", b"X", b"g", b"G", b"p", b"P", b"Z0,", b"z1,", b"H", b"T", b"vCont;", b"q", b"Q",
                         b"?", b"qXfer:features:read:target.xml:", b"qRcmd,", b"qThreadExtraInfo,"]),
        st.text("0123456789abcdef,:;=-sc}x", max_size=30).map(str.encode),
    ),
), max_size=12))  # fmt: skip
def test_nothing_sent_does_harm(pieces: list[bytes]) -> None:
    """A malformed packet never takes the VMM down; the session goes on, or ends in order."""
    ours, theirs = socket.socketpair()
    target = FakeTarget()
    target.last = 1
    theirs.sendall(b"".join(pieces))
    theirs.shutdown(socket.SHUT_WR)
    session = Session(ours, target, Stop())
    assert session.serve() in ("gone", "detached", "killed")
    assert len(target.memory) == MEMORY
    assert target.places == frozenset()
    ours.close()
    theirs.close()


@given(st.binary(max_size=300))
def test_what_is_framed_comes_out_again(data: bytes) -> None:
    reader = Reader()
    packets = [packet for byte in framed(data) for packet, _ in reader.take(bytes((byte,)))]
    assert packets == [data]


def test_a_packet_without_end_is_given_up() -> None:
    reader = Reader()
    assert list(reader.take(b"$" + b"a" * (2 * MOST))) == [(None, b"-")]
    assert list(reader.take(framed(b"g"))) == [(b"g", b"+")]
    assert list(reader.take(b"$g#00")) == [(None, b"-")]
    assert unescaped(b"}") == b""
