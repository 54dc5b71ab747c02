"""A machine of two processors whose every byte of code is one instruction; it runs until a breakpoint or a wish."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from pathlib import Path

from pvh.abi.x86 import AR_DB, AR_L, CR0_PE, EFER_LMA
from pvh.build.cpu_state import CpuState, SegmentRegister
from pvh.gdb.session import Session
from pvh.gdb.target import Stop

FLAT = SegmentRegister(8, 0, 0xFFFFFFFF, 0x9B | AR_DB)
LONG = SegmentRegister(8, 0, 0xFFFFFFFF, 0x9B | AR_L)
MEMORY = 0x4000


def state(bits: int, rip: int) -> CpuState:
    gprs = tuple(0x1111 * n for n in range(16))
    if bits == 64:
        return CpuState(gprs=gprs, rip=rip, cs=LONG, cr0=CR0_PE, efer=EFER_LMA | 0x100, fs=replace(FLAT, base=0x1234))
    return CpuState(gprs=gprs, rip=rip, cs=FLAT, cr0=CR0_PE)


class FakeTarget:
    def __init__(self, bits: int = 32) -> None:
        self.states = [state(bits, 0x1000), state(bits, 0x2000)]
        self.memory = bytearray(MEMORY)
        self.places: frozenset[int] = frozenset()
        self.wish = threading.Event()
        self.pending: Stop | None = None
        self.runs = False
        self.ended = False
        self.last: int | None = None  # the run ends when the first processor comes here

    vcpus = 2

    def state(self, vcpu: int) -> CpuState:
        return self.states[vcpu]

    def set_state(self, vcpu: int, state: CpuState) -> None:
        self.states[vcpu] = state

    def describe(self, vcpu: int) -> str:
        return ("running", "down")[vcpu]

    def read(self, vcpu: int, address: int, size: int) -> bytes:
        assert 0 <= vcpu < 2
        return bytes(self.memory[address : address + size]) if address < MEMORY else b""

    def write(self, vcpu: int, address: int, data: bytes) -> bool:
        assert 0 <= vcpu < 2
        if address + len(data) > MEMORY:
            return False
        self.memory[address : address + len(data)] = data
        return True

    def break_at(self, addresses: frozenset[int]) -> bool:
        if len(addresses) > 8:
            return False
        self.places = addresses
        return True

    def go(self) -> None:
        self.runs = True

    def step(self, vcpu: int) -> None:
        self.states[vcpu] = replace(self.states[vcpu], rip=self.states[vcpu].rip + 1)
        self.pending = Stop(vcpu)

    def wait(self, seconds: float) -> Stop | None:
        if self.pending:
            found, self.pending = self.pending, None
            return found
        ahead = [place for place in self.places if place > self.states[0].rip]
        if self.last and not ahead:
            return Stop(ended=(7, "the guest wrote 7 to exit port 0xf4"))
        if ahead:
            self.states[0] = replace(self.states[0], rip=min(ahead))
            return Stop(0)
        return Stop(1, 2) if self.wish.wait(seconds) else None

    def interrupt(self) -> None:
        self.wish.set()

    def end(self) -> None:
        self.ended = True

    def monitor(self, words: list[str]) -> str:
        return f"you said {' '.join(words)}\n"


class Served:
    """A session in a thread, and the path of its socket."""

    def __init__(self, target: FakeTarget, folder: Path) -> None:
        self.path = str(folder / "gdb")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen(1)
        self.farewells: list[str] = []
        self.thread = threading.Thread(target=self._serve, args=(target,), daemon=True)
        self.thread.start()

    def _serve(self, target: FakeTarget) -> None:
        stream, _ = self._socket.accept()
        with stream:
            self.farewells.append(Session(stream, target, Stop()).serve())

    def close(self) -> None:
        self.thread.join(10)
        assert not self.thread.is_alive()
        self._socket.close()
