"""The debug ports: a console byte, an exit status, and what `pvh run --exec` and its init tell one another."""

from __future__ import annotations

from collections.abc import Callable

from pvh.devices.ports import Ports
from pvh.hints import Protocol

DEBUG_CONSOLE = 0xE9  # XEN_HVM_DEBUGCONS_IOPORT (xen/include/public/arch-x86/xen.h), and Bochs'
EXIT = 0xF4  # QEMU's isa-debug-exit by custom; here the value itself is the status
READY = 0xF5  # `pvh run --exec` holds what is typed until its init has set the terminal up
COMMAND = 0xF6  # that init writes here when it waits for its command, and reads it here


class Listener(Protocol):
    """Who is told what a guest says to the debug ports."""

    def leave(self, value: int) -> None:
        """The run is to end with a status, 0 to 255."""
        ...

    def ready(self) -> None:
        """The guest takes what is typed."""
        ...

    def waiting(self) -> None:
        """The guest waits for its command."""
        ...

    def next_byte(self) -> int:
        """Return the next byte of the command; behind the last one anything."""
        ...


def claim_debug_ports(ports: Ports, console: Callable[[bytes], None], listener: Listener) -> None:
    """Wire the ports."""

    def say(_port: int, _size: int, value: int) -> None:
        console(bytes((value & 0xFF,)))  # a wider OUT spills into ports that nobody has

    def end(_port: int, _size: int, value: int) -> None:
        listener.leave(value & 0xFF)

    def be_ready(_port: int, _size: int, _value: int) -> None:
        listener.ready()

    def wait(_port: int, _size: int, _value: int) -> None:
        listener.waiting()

    def command(_port: int, size: int) -> int:
        return listener.next_byte() | (1 << size * 8) - 0x100

    ports.claim(range(COMMAND, COMMAND + 1), command, wait)
    ports.claim(range(READY, READY + 1), None, be_ready)
    ports.claim(range(DEBUG_CONSOLE, DEBUG_CONSOLE + 1), None, say)
    ports.claim(range(EXIT, EXIT + 1), None, end)
