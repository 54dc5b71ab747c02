"""Random hypercalls of every number: structures that are half right, pointers of all kinds. Without pytest."""

from __future__ import annotations

import random
import struct

from pvh.abi import event_channel, sched, vcpu_op
from pvh.abi import hypercall as abi
from pvh.record import dataclass
from pvh.xen.dispatch import HANDLERS

# Operations there are, by call; others come up too.
OPERATIONS = {
    abi.MEMORY_OP: 28, abi.XEN_VERSION: 12, abi.CONSOLE_IO: 3, abi.GRANT_TABLE_OP: 13, abi.VM_ASSIST: 3,
    abi.VCPU_OP: 17, abi.SCHED_OP: 8, abi.EVENT_CHANNEL_OP: 15, abi.PHYSDEV_OP: 32, abi.HVM_OP: 27,
}  # fmt: skip
SMALL = (0, 1, 2, 3, 4, 5, 8, 16, 64, 100, 128, 129, 512, 1023, 1024, 4095, 4096)
FULL = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Places:
    """Addresses of a guest.

    ram       bytes of RAM from 0
    arg       where argument structures go, and buffer what they point to
    wanted    further addresses that calls shall name: page tables, rings, shared_info
    """

    ram: int
    arg: int
    buffer: int
    wanted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One call: its number, five arguments, and the 64 bytes at `arg` and at `buffer`."""

    number: int
    args: tuple[int, ...]
    structure: bytes
    buffer: bytes

    @property
    def operation(self) -> int:
        """What a call that has operations is asked for."""
        return self.args[0] & 0xFFFFFFFF


class Attacker:
    """Makes calls. gentle: few of those that end the run, or that may reach what the guest itself needs."""

    def __init__(self, rng: random.Random, places: Places, *, gentle: bool = False) -> None:
        self.rng = rng
        self.gentle = gentle
        self._places = places
        self._edges = (
            *SMALL, 0x7FF0, 0x7FFF, 0xFFFF, 1 << 16, 1 << 26, 0x7FFFFFFF, 1 << 31, 0xFFFFFFFF, 1 << 32, 1 << 40,
            1 << 52, 1 << 62, 1 << 63, FULL, places.arg, places.buffer, places.ram - 1, places.ram - 4, places.ram,
            *places.wanted, places.arg >> 12, places.ram >> 12, *(place >> 12 for place in places.wanted),
        )  # fmt: skip

    def value(self) -> int:
        """Return a number, mostly one at some edge."""
        kind = self.rng.random()
        if kind < 0.5:
            return self.rng.choice(SMALL)
        if kind < 0.9:
            return self.rng.choice(self._edges)
        return self.rng.getrandbits(64)

    def address(self) -> int:
        """Return an address, mostly of a structure."""
        places = self._places
        return self.rng.choice((places.arg, places.arg, places.arg, places.buffer, self.value()))

    def structure(self) -> bytes:
        """Return fields of all sizes, mostly of one size, aligned or not."""
        sizes = self.rng.choice(((2,), (4,), (8,), (2, 4), (2, 2, 4), (2, 6, 8), (1, 2, 4, 8)))
        data = bytearray(self.rng.randrange(2))
        while len(data) < 64:
            size = self.rng.choice(sizes) if len(sizes) > 3 else sizes[len(data) // 2 % len(sizes)]
            data += (self.value() & (1 << 8 * size) - 1).to_bytes(size, "little")
        return bytes(data[:64])

    def call(self, bits: int) -> Call:
        """Return a call of a caller of that width."""
        number, args = self._numbers()
        structure = self.structure()
        if number == abi.MULTICALL and self.rng.random() < 0.7:
            structure = self._entry(bits)
        if self.gentle and number == abi.SCHED_OP and args[0] & 0xFFFFFFFF == sched.WATCHDOG:
            args, structure = (args[0], self._places.arg, *args[2:]), self._slow_watchdog(structure)
        mask = FULL if bits == 64 else 0xFFFFFFFF
        return Call(number & mask, tuple(value & mask for value in args), structure, self.structure())

    def ring(self, port: int) -> Call:
        """Return a call that sends to a port."""
        places = self._places
        args = (event_channel.SEND, places.arg, 0, 0, 0)
        return Call(abi.EVENT_CHANNEL_OP, args, struct.pack("<I", port).ljust(64, b"\0"), bytes(64))

    def _numbers(self) -> tuple[int, tuple[int, ...]]:
        number = self.rng.choice((*HANDLERS, *HANDLERS, self.rng.randrange(64), self.value()))
        operation = self.rng.randrange(OPERATIONS.get(number, 64)) if self.rng.random() < 0.9 else self.value()
        args = self._args(number, operation)
        if self._ends(number, args) and self.rng.random() < (0.998 if self.gentle else 0.9):
            args = (3, *args[1:])  # is_up, poll
        return number, (*args, *(0,) * (5 - len(args)))

    def _args(self, number: int, operation: int) -> tuple[int, ...]:
        if number == abi.MULTICALL:
            # A list that fills memory takes a second: such ones are few.
            return (self.address(), self._many(40))
        if number == abi.VCPU_OP:
            return (operation, self.rng.choice((0, 1, self.value())), self.address())
        if number == abi.CONSOLE_IO:
            return (operation, self._many(4096), self.address())
        if number == abi.MEMORY_OP and self.rng.random() < 0.1:
            operation |= self.value() << 6 & FULL
        if number == abi.GRANT_TABLE_OP:
            return (operation, self.address(), self._many(40))
        return (operation, self.address(), self.value(), self.value(), self.value())

    def _many(self, usual: int) -> int:
        """Return a count, seldom one that no list has. Gentle: none that leads past the first megabyte."""
        if self.rng.random() >= 0.02:
            return self.rng.randrange(usual)
        return self.rng.randrange(10_000) if self.gentle else self.value()

    def _entry(self, bits: int) -> bytes:
        """Return an entry of a multicall's list that is whole."""
        number, args = self._numbers()
        while number == abi.SCHED_OP:
            number, args = self._numbers()
        values = [value & (FULL if bits == 64 else 0xFFFFFFFF) for value in (number, 0, *args, 0)]
        return struct.pack(abi.MULTICALL_64 if bits == 64 else abi.MULTICALL_32, *values).ljust(64, b"\0")

    def _slow_watchdog(self, structure: bytes) -> bytes:
        watchdog, seconds = struct.unpack_from("<II", structure)
        return struct.pack("<II", watchdog, seconds | 1 << 8 if seconds or not watchdog else 0) + structure[8:]

    def _ends(self, number: int, args: tuple[int, ...]) -> bool:
        """Whether a call may end the run: a shutdown, or of gentle ones the caller down, or another vCPU up."""
        operation = args[0] & 0xFFFFFFFF
        if self.gentle and number == abi.VCPU_OP:
            return operation == vcpu_op.UP or (operation == vcpu_op.DOWN and args[1] & 0xFFFFFFFF == 0)
        return number == abi.SCHED_OP and operation == sched.SHUTDOWN
