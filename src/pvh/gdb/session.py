"""One debugger at one machine: its packets, carried out (GDB's manual, E.2 Packets, E.4 General Query Packets).

Threads are vCPUs, numbered from 1 as GDB wants them. The machine is stopped whenever a packet is carried out. What a
debugger sees of a vCPU is of the width that its code had when the description was asked for: GDB reads that once.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from pvh.gdb.packets import INTERRUPT, MOST, Reader, framed
from pvh.gdb.registers import Layout, layout_for
from pvh.gdb.target import Stop, Target
from pvh.hints import Literal

_POLL = 0.05  # seconds between two looks at a machine that runs
_BAD, _FAULT, _ENDED = b"E01", b"E0e", b"E03"
_HIGH = 0xFFFFFFFF << 32
_KINDS = (b"0", b"1")  # breakpoints: software, hardware; to the guest they are the same here
_SUPPORTED = b"PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;swbreak+;hwbreak+;vContSupported+" % MOST


Farewell = Literal["gone", "detached", "killed"]


class Gone(Exception):
    """The debugger goes: without a word, with leave for the guest to run on, or it wants the run to end."""

    def __init__(self, how: Farewell = "gone") -> None:
        super().__init__()
        self.how: Farewell = how


class Session:
    """A debugger at the other end of a stream. The machine is stopped at its begin, and at its end."""

    def __init__(self, stream: socket.socket, target: Target, stop: Stop) -> None:
        """Begin with a stopped machine and why it stopped."""
        self._stream = stream
        self._target = target
        self._stop = stop
        self._reader = Reader()
        self._vcpu = stop.vcpu
        self._layout: Layout | None = None
        self._told = False
        self._breakpoints: set[tuple[bytes, int]] = set()
        self._commands: dict[bytes, Callable[[bytes], bytes | None]] = {
            b"?": lambda _: self._stopped(),
            b"g": lambda _: self._registers().pack(self._target.state(self._vcpu)),
            b"G": self._set_registers,
            b"p": self._one,
            b"P": self._set_one,
            b"m": self._read,
            b"M": self._write,
            b"X": self._write_binary,
            b"c": lambda _: self._go(),
            b"C": lambda _: self._go(),
            b"s": lambda _: self._step(self._vcpu),
            b"S": lambda _: self._step(self._vcpu),
            b"H": self._choose,
            b"T": lambda rest: b"OK" if self._thread(rest) is not None else _BAD,
            b"Z": lambda rest: self._break(rest, insert=True),
            b"z": lambda rest: self._break(rest, insert=False),
            b"v": self._verbose,
            b"q": self._query,
            b"Q": self._set,
            b"D": self._detach,
            b"k": lambda _: self._kill(),
        }

    def serve(self) -> Farewell:
        """Carry packets out until the debugger leaves or the run ends; return what it left with."""
        try:
            while True:
                data = self._stream.recv(MOST)
                if not data:
                    break
                for packet, now in self._reader.take(data):
                    self._send(now)
                    if packet is not None and packet != INTERRUPT:
                        self._carry_out(packet)
        except Gone as gone:
            return gone.how
        except OSError:  # the connection broke
            pass
        finally:
            self._target.break_at(frozenset())
        return "gone"

    def _carry_out(self, packet: bytes) -> None:
        handler = self._commands.get(packet[:1])
        try:
            answer = handler(packet[1:]) if handler else b""
        except ValueError:  # a number that is none, a field that is missing
            answer = _BAD
        if answer is not None:
            self._send(framed(answer))

    def _send(self, data: bytes) -> None:
        if data:
            self._stream.sendall(data)

    # Registers.

    def _registers(self) -> Layout:
        state = self._target.state(self._vcpu)
        now = layout_for(state)
        if self._layout is None:
            self._layout = now
        return self._layout

    def _tell_of_width(self) -> None:
        """Say once that the code is of another width than the debugger was told."""
        now = layout_for(self._target.state(self._vcpu))
        if self._layout not in (None, now) and not self._told:
            self._told = True
            text = f"pvh: vCPU {self._vcpu} runs {now.bits}-bit code now; `disconnect` and connect again to see it so\n"
            self._send(framed(b"O" + text.encode().hex().encode()))

    def _whole(self, address: int) -> int:
        """Return what an address is that a debugger of 32 bits may have cut: kernels live in the uppermost 2 GiB."""
        cut = self._layout is not None and self._layout.bits == 32 and address >= 1 << 31
        return address | _HIGH if cut and self._target.state(self._vcpu).bits == 64 else address

    def _set_registers(self, rest: bytes) -> bytes:
        self._target.set_state(self._vcpu, self._registers().unpack(self._target.state(self._vcpu), rest))
        return b"OK"

    def _one(self, rest: bytes) -> bytes:
        layout, index = self._registers(), int(rest, 16)
        if index >= len(layout.registers):
            return _BAD
        return layout.one(layout.registers[index], self._target.state(self._vcpu))

    def _set_one(self, rest: bytes) -> bytes:
        number, _, digits = rest.partition(b"=")
        layout, index = self._registers(), int(number, 16)
        if index >= len(layout.registers):
            return _BAD
        state = layout.change(layout.registers[index], self._target.state(self._vcpu), digits)
        self._target.set_state(self._vcpu, state)
        return b"OK"

    # Memory.

    def _read(self, rest: bytes) -> bytes:
        address, size = _numbers(rest)
        data = self._target.read(self._vcpu, self._whole(address), min(size, MOST // 2))
        return data.hex().encode() if data or not size else _FAULT

    def _write(self, rest: bytes) -> bytes:
        place, _, digits = rest.partition(b":")
        return self._store(place, bytes.fromhex(digits.decode("ascii")))

    def _write_binary(self, rest: bytes) -> bytes:
        place, _, data = rest.partition(b":")
        return self._store(place, data)

    def _store(self, place: bytes, data: bytes) -> bytes:
        address, size = _numbers(place)
        if size != len(data):
            return _BAD
        return b"OK" if not size or self._target.write(self._vcpu, self._whole(address), data) else _FAULT

    def _break(self, rest: bytes, *, insert: bool) -> bytes:
        kind, address, *_ = rest.split(b";")[0].split(b",")
        if kind not in _KINDS:
            return b""  # watchpoints: told not to use any, GDB steps and compares by itself
        place = kind, int(address, 16)
        before = set(self._breakpoints)
        (self._breakpoints.add if insert else self._breakpoints.discard)(place)
        if self._target.break_at(self._places()):
            return b"OK"
        self._breakpoints = before
        self._target.break_at(self._places())
        return _BAD

    def _places(self) -> frozenset[int]:
        """Return where to stop: also in the uppermost 2 GiB, for a debugger that sees 32 bits (see _whole)."""
        low = {at for _, at in self._breakpoints}
        high = {at | _HIGH for at in low if at >= 1 << 31} if self._layout and self._layout.bits == 32 else set[int]()
        return frozenset(low | high)

    # Running.

    def _go(self) -> bytes:
        self._target.go()
        return self._until_stopped()

    def _step(self, vcpu: int) -> bytes:
        self._target.step(vcpu)
        return self._until_stopped()

    def _until_stopped(self) -> bytes:
        """Wait for a stop, and meanwhile for the debugger's interrupt."""
        came = b""
        while True:
            if self._reader.interrupted(came):
                self._target.interrupt()
            came = b""
            stop = self._target.wait(_POLL)
            if stop:
                self._stop, self._vcpu = stop, stop.vcpu
                if not stop.ended:
                    self._tell_of_width()
                return self._stopped()
            if select.select((self._stream,), (), (), 0)[0]:
                came = self._stream.recv(MOST)
                if not came:
                    self._target.interrupt()
                    raise Gone

    def _stopped(self) -> bytes:
        """Return a stop reply. Behind the last one there is nothing left to debug."""
        if self._stop.ended:
            status, how = self._stop.ended
            self._send(framed(b"O" + f"pvh: {how}\n".encode().hex().encode()))
            self._send(framed(b"W%02x" % (status & 0xFF)))
            raise Gone
        why = b""
        if self._stop.signal == 5:
            # Of a place that GDB knows by its lower half only, the reason is not told: GDB would pass it over.
            here = self._target.state(self._stop.vcpu).linear_rip
            kinds = {kind for kind, at in self._breakpoints if at == here}
            why = b"hwbreak:;" if b"1" in kinds else b"swbreak:;" if kinds else b""
        return b"T%02x%sthread:%x;" % (self._stop.signal, why, self._stop.vcpu + 1)

    def _verbose(self, rest: bytes) -> bytes | None:
        if rest == b"Cont?":
            return b"vCont;c;C;s;S"
        if rest.startswith(b"Kill;"):
            int(rest[5:], 16)
            self._send(framed(b"OK"))
            raise Gone("killed")
        if not rest.startswith(b"Cont;"):
            return b""
        actions = [action.partition(b":") for action in rest[5:].split(b";")]
        for what, _, thread in actions:
            vcpu = self._thread(thread) if thread else self._vcpu
            if vcpu is None or what[:1] not in (b"c", b"C", b"s", b"S"):
                return _BAD
            if what[:1] in (b"s", b"S"):
                return self._step(vcpu)
        return self._go()

    def _detach(self, _: bytes) -> None:
        self._send(framed(b"OK"))
        raise Gone("detached")

    def _kill(self) -> None:
        raise Gone("killed")

    # Threads and questions.

    def _thread(self, text: bytes) -> int | None:
        """Return the vCPU of a thread's number; 0 and -1 mean any. None: there is no such."""
        number = int(text, 16)
        if number in (0, -1):
            return self._vcpu
        return number - 1 if 1 <= number <= self._target.vcpus else None

    def _choose(self, rest: bytes) -> bytes:
        vcpu = self._thread(rest[1:])
        if vcpu is None:
            return _BAD
        if rest[:1] == b"g":
            self._vcpu = vcpu
        return b"OK"

    def _query(self, rest: bytes) -> bytes:
        name, _, words = rest.partition(b":")
        if name == b"Supported":
            return _SUPPORTED
        if name == b"Xfer" and words.startswith(b"features:read:target.xml:"):
            return self._piece(words.rpartition(b":")[2])
        if name.startswith(b"Rcmd,"):
            return self._monitor(rest[5:])
        if name.startswith(b"ThreadExtraInfo,"):
            vcpu = self._thread(name.partition(b",")[2])
            return _BAD if vcpu is None else self._target.describe(vcpu).encode().hex().encode()
        known: dict[bytes, bytes] = {
            b"C": b"QC%x" % (self._vcpu + 1),
            b"fThreadInfo": b"m" + b",".join(b"%x" % (vcpu + 1) for vcpu in range(self._target.vcpus)),
            b"sThreadInfo": b"l",
            b"Attached": b"1",
            b"Symbol": b"OK",
        }
        return known.get(name, b"")

    def _piece(self, place: bytes) -> bytes:
        """Return a part of the target description: m and more follows, or l and it was the last."""
        offset, size = _numbers(place)
        self._layout, self._told = None, False
        text = self._registers().description().encode()
        part = text[offset : offset + size]
        return (b"m" if offset + size < len(text) else b"l") + part

    def _set(self, rest: bytes) -> bytes:
        if rest != b"StartNoAckMode":
            return b""
        self._reader.silent = True
        return b"OK"

    def _monitor(self, digits: bytes) -> bytes:
        words = bytes.fromhex(digits.decode("ascii")).decode(errors="replace").split()
        text = self._target.monitor(words)
        return text.encode()[: MOST // 2].hex().encode() if text else b"OK"


def _numbers(text: bytes) -> tuple[int, int]:
    """Return two hexadecimal numbers with a comma between. Raises ValueError."""
    first, comma, second = text.partition(b",")
    if not comma:
        raise ValueError(text)
    address, size = int(first, 16), int(second, 16)
    if min(address, size) < 0:
        raise ValueError(text)
    return address, size
