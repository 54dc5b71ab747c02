"""I/O ports: unclaimed reads give all ones, writes are dropped (facts/xen-abi.md, 3; xen/arch/x86/hvm/emulate.c)."""

from __future__ import annotations

import pytest

from pvh.devices.debug import claim_debug_ports
from pvh.devices.ports import Ports


@pytest.mark.parametrize(("size", "ones"), [(1, 0xFF), (2, 0xFFFF), (4, 0xFFFFFFFF)])
def test_nobody_there(size: int, ones: int) -> None:
    ports = Ports()
    ports.write(0x10, size, 0)
    assert ports.read(0x10, size) == ones


def test_a_device_may_be_read_only_or_written_only() -> None:
    ports, written = Ports(), list[tuple[int, int, int]]()
    ports.claim(range(4, 6), lambda port, size: port * 16 + size, None)
    ports.claim(range(5, 7), None, lambda port, size, value: written.append((port, size, value)))
    assert [ports.read(port, 1) for port in range(3, 7)] == [0xFF, 0x41, 0x51, 0xFF]
    for port in range(3, 7):
        ports.write(port, 2, port)
    assert written == [(5, 2, 5), (6, 2, 6)]


class TestDebugPorts:
    """0xe9 is XEN_HVM_DEBUGCONS_IOPORT; 0xf4 ends the run with the value as its status."""

    def setup_method(self) -> None:
        self.ports, self.said, self.left, self.told = Ports(), bytearray(), list[int](), list[str]()
        self.bytes = iter(b"\x81b")
        claim_debug_ports(self.ports, self.said.extend, self)

    def leave(self, value: int) -> None:
        self.left.append(value)

    def ready(self) -> None:
        self.told.append("ready")

    def waiting(self) -> None:
        self.told.append("waiting")

    def next_byte(self) -> int:
        return next(self.bytes, 0)

    def test_bytes_to_0xe9_are_said(self) -> None:
        for byte in b"hi\n\xff\0":
            self.ports.write(0xE9, 1, byte)
        assert self.said == b"hi\n\xff\0"

    @pytest.mark.parametrize("size", [2, 4])
    def test_a_wider_out_says_its_first_byte_and_spills_the_rest(self, size: int) -> None:
        """The bytes behind belong to ports 0xea and up, where nobody is."""
        self.ports.write(0xE9, size, 0x6141)
        assert self.said == b"A"

    @pytest.mark.parametrize(("value", "status"), [(0, 0), (7, 7), (255, 255), (0x1FF, 255)])
    def test_a_value_to_0xf4_is_the_status(self, value: int, status: int) -> None:
        self.ports.write(0xF4, 4, value)
        assert self.left == [status]

    def test_anything_to_0xf5_is_for_ready(self) -> None:
        self.ports.write(0xF5, 1, 0)
        assert (self.told, self.left) == (["ready"], [])

    def test_0xf6_asks_for_the_command_and_gives_it_a_byte_at_a_time(self) -> None:
        self.ports.write(0xF6, 1, 7)
        assert self.told == ["waiting"]
        assert [self.ports.read(0xF6, size) for size in (1, 4, 1)] == [0x81, 0xFFFFFF62, 0]

    def test_no_other_can_be_read(self) -> None:
        assert [self.ports.read(port, 1) for port in (0xE9, 0xF4, 0xF5)] == [0xFF] * 3
