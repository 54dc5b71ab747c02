"""The 16550 of platform bare (PC16550D data sheet), as Linux's 8250 driver finds and uses it."""

from __future__ import annotations

import pytest

from pvh.devices.ports import Ports
from pvh.devices.serial import COM1, Serial

DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(8)
FCR = IIR


class Uart:
    def __init__(self) -> None:
        self.ports, self.sent, self.typing = Ports(), bytearray(), bytearray()
        Serial(self.ports, COM1, self.sent.extend, self.take)

    def take(self, count: int) -> bytes:
        data = bytes(self.typing[:count])
        del self.typing[:count]
        return data

    def get(self, register: int) -> int:
        return self.ports.read(COM1 + register, 1)

    def put(self, register: int, value: int) -> None:
        self.ports.write(COM1 + register, 1, value)


@pytest.fixture
def uart() -> Uart:
    return Uart()


def test_bytes_are_sent_and_the_transmitter_is_always_empty(uart: Uart) -> None:
    for byte in b"ok\xff":
        assert uart.get(LSR) == 0x60
        uart.put(DATA, byte)
    assert uart.sent == b"ok\xff"


def test_with_dlab_the_first_two_registers_are_the_divisor(uart: Uart) -> None:
    uart.put(LCR, 0x83)
    uart.put(DATA, 1)
    uart.put(IER, 2)
    assert (uart.get(DATA), uart.get(IER), uart.get(LCR)) == (1, 2, 0x83)
    uart.put(LCR, 3)
    assert (uart.get(DATA), uart.get(IER)) == (0, 0)
    assert uart.sent == b""


def test_autoconfig_1_only_four_bits_of_ier_exist(uart: Uart) -> None:
    """Linux, drivers/tty/serial/8250/8250_port.c, autoconfig(): write 0 and 0xf, read both back."""
    uart.put(IER, 0)
    assert uart.get(IER) == 0
    uart.put(IER, 0xFF)
    assert uart.get(IER) == 0x0F


def test_autoconfig_2_loopback_returns_modem_control_as_modem_status(uart: Uart) -> None:
    """MCR = LOOP | OUT2 | RTS must read as DCD | CTS."""
    uart.put(MCR, 0x1A)
    assert uart.get(MSR) & 0xF0 == 0x90
    uart.put(MCR, 0x15)
    assert uart.get(MSR) & 0xF0 == 0x60
    uart.put(MCR, 0xFF)
    assert uart.get(MCR) == 0x1F


def test_autoconfig_3_a_fifo_that_shows_in_iir_makes_it_a_16550a(uart: Uart) -> None:
    """And not a 16650, 16750 or XScale: no EFR, no 64-byte FIFO, no UUE."""
    assert uart.get(IIR) == 0x01
    uart.put(FCR, 1)
    assert uart.get(IIR) == 0xC1
    uart.put(FCR, 0x27)
    assert uart.get(IIR) & 0xE0 == 0xC0
    uart.put(FCR, 0)
    assert uart.get(IIR) == 0x01


def test_out_of_loopback_a_terminal_is_connected_and_ready(uart: Uart) -> None:
    assert uart.get(MSR) == 0xB0


def test_in_loopback_a_byte_comes_back_and_is_not_sent(uart: Uart) -> None:
    uart.put(MCR, 0x10)
    uart.put(DATA, 0)
    assert uart.get(LSR) == 0x61
    assert uart.get(DATA) == 0
    uart.put(DATA, 0xA5)
    assert uart.get(DATA) == 0xA5
    assert uart.get(LSR) == 0x60
    assert uart.sent == b""


def test_an_empty_transmitter_shows_in_iir_once_for_those_who_asked(uart: Uart) -> None:
    """Linux without an IRQ polls IIR from a timer, and sends more only when it names THRE (serial8250_timeout)."""
    uart.put(DATA, 1)
    assert uart.get(IIR) == 1
    uart.put(IER, 2)
    assert [uart.get(IIR), uart.get(IIR)] == [2, 1]
    uart.put(DATA, 1)
    assert [uart.get(IIR), uart.get(IIR)] == [2, 1]
    uart.put(IER, 2)
    assert uart.get(IIR) == 1
    uart.put(IER, 0)
    uart.put(IER, 2)
    assert uart.get(IIR) == 2


def test_what_is_typed_shows_in_lsr_and_is_read_byte_by_byte(uart: Uart) -> None:
    uart.typing += b"ok"
    assert [uart.get(LSR), uart.get(LSR), uart.get(DATA)] == [0x61, 0x61, ord("o")]
    assert [uart.get(DATA), uart.get(LSR), uart.get(DATA)] == [ord("k"), 0x60, 0]


def test_received_data_shows_in_iir_before_an_empty_transmitter_for_those_who_asked(uart: Uart) -> None:
    """IIR 4 until the receiver buffer is read, as it has the higher priority."""
    uart.typing += b"x"
    assert uart.get(IIR) == 1
    uart.put(IER, 3)
    assert [uart.get(IIR), uart.get(IIR)] == [4, 4]
    assert uart.get(DATA) == ord("x")
    assert [uart.get(IIR), uart.get(IIR)] == [2, 1]


def test_in_loopback_nothing_comes_in_from_outside(uart: Uart) -> None:
    uart.typing += b"x"
    uart.put(MCR, 0x10)
    assert [uart.get(LSR), uart.get(DATA)] == [0x60, 0]
    uart.put(MCR, 0)
    assert [uart.get(LSR), uart.get(DATA)] == [0x61, ord("x")]


def test_the_scratch_register_keeps_a_byte_and_status_registers_are_read_only(uart: Uart) -> None:
    uart.put(SCR, 0x5A)
    uart.put(LSR, 0)
    uart.put(MSR, 0)
    assert (uart.get(SCR), uart.get(LSR), uart.get(MSR)) == (0x5A, 0x60, 0xB0)


def test_wider_accesses_reach_one_register_and_nobody(uart: Uart) -> None:
    uart.ports.write(COM1, 2, 0x4241)
    assert uart.sent == b"A"
    assert uart.ports.read(COM1 + LSR, 4) == 0xFFFFFF60


def test_it_has_eight_ports(uart: Uart) -> None:
    assert [uart.ports.read(COM1 + offset, 1) == 0xFF for offset in (-1, 8)] == [True, True]
