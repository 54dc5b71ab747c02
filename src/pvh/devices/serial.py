"""A 16550 UART (National Semiconductor PC16550D data sheet): platform `bare` has it at 0x3f8.

There is no interrupt controller to tell, so its interrupts only show in IIR, where drivers without an IRQ poll them
(Linux: serial8250_timeout). The transmitter is always empty. The receiver never overruns: what was typed waits outside.
"""

from __future__ import annotations

from collections.abc import Callable

from pvh.devices.ports import Ports

COM1 = 0x3F8

_DATA, _IER, _IIR_FCR, _LCR, _MCR, _LSR, _MSR, _SCR = range(8)
_LCR_DLAB = 0x80
_MCR_LOOP = 0x10
_IER_DATA = 0x01
_IER_THRE = 0x02
_LSR_DATA_READY = 0x01
_LSR_EMPTY = 0x60  # THRE and TEMT
_MSR_READY = 0xB0  # DCD, DSR, CTS
_IIR_NONE = 0x01
_IIR_THRE = 0x02
_IIR_DATA = 0x04
_IIR_FIFO = 0xC0
_WRITABLE = {_IER: 0x0F, _MCR: 0x1F}


class Serial:
    """One UART: `send` takes each byte the guest transmits, `take` gives up to so many to receive."""

    KEPT = ("_registers", "_divisor", "_received", "_fifo", "_emptied")

    def __init__(
        self, ports: Ports, base: int, send: Callable[[bytes], None], take: Callable[[int], bytes] = lambda _count: b""
    ) -> None:
        self._send = send
        self._take = take
        self._base = base
        self._registers = [0] * 8
        self._divisor = [0x0C, 0]
        self._received = b""  # the receiver buffer: one byte at most
        self._fifo = False
        self._emptied = False  # the transmitter became empty, and IIR has not told yet
        ports.claim(range(base, base + 8), self._read, self._write)

    def _read(self, port: int, size: int) -> int:
        value = self._read_byte(port - self._base)
        return value | (0 if size == 1 else (1 << size * 8) - 0x100)

    def _read_byte(self, register: int) -> int:
        if register in (_DATA, _IER) and self._registers[_LCR] & _LCR_DLAB:
            return self._divisor[register]
        if register == _DATA:
            received = self._receive()
            self._received = b""
            return received[0] if received else 0
        if register == _IIR_FCR:
            return self._identify() | (_IIR_FIFO if self._fifo else 0)
        if register == _LSR:
            return _LSR_EMPTY | (_LSR_DATA_READY if self._receive() else 0)
        if register == _MSR:
            return self._modem_status()
        return self._registers[register]

    def _receive(self) -> bytes:
        """Return what is in the receiver buffer; in loopback nothing comes in from outside."""
        if not self._received and not self._registers[_MCR] & _MCR_LOOP:
            self._received = self._take(1)
        return self._received

    def _identify(self) -> int:
        """Return the pending interrupt of highest priority; telling that the transmitter is empty acknowledges it."""
        if self._registers[_IER] & _IER_DATA and self._receive():
            return _IIR_DATA
        told = self._emptied and self._registers[_IER] & _IER_THRE
        if told:
            self._emptied = False
        return _IIR_THRE if told else _IIR_NONE

    def _modem_status(self) -> int:
        mcr = self._registers[_MCR]
        if not mcr & _MCR_LOOP:
            return _MSR_READY
        # In loopback DTR, RTS, OUT1, OUT2 come back as DSR, CTS, RI, DCD.
        return (mcr & 1) << 5 | (mcr & 2) << 3 | (mcr & 4) << 4 | (mcr & 8) << 4

    def _write(self, port: int, _size: int, value: int) -> None:
        register, value = port - self._base, value & 0xFF
        if register in (_DATA, _IER) and self._registers[_LCR] & _LCR_DLAB:
            self._divisor[register] = value
        elif register == _DATA:
            self._emptied = True
            if self._registers[_MCR] & _MCR_LOOP:
                self._received = bytes((value,))
            else:
                self._send(bytes((value,)))
        elif register == _IIR_FCR:
            self._fifo = bool(value & 1)
        elif register not in (_LSR, _MSR):
            if register == _IER and value & ~self._registers[_IER] & _IER_THRE:
                self._emptied = True
            self._registers[register] = value & _WRITABLE.get(register, 0xFF)
