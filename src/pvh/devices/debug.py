"""The debug ports: 0xe9 takes a console byte, 0xf4 an exit status, 0xf5 that the guest is ready for its input."""

from __future__ import annotations

from collections.abc import Callable

from pvh.devices.ports import Ports

DEBUG_CONSOLE = 0xE9  # XEN_HVM_DEBUGCONS_IOPORT (xen/include/public/arch-x86/xen.h), and Bochs'
EXIT = 0xF4  # QEMU's isa-debug-exit by custom; here the value itself is the status
READY = 0xF5  # `pvh run --exec` holds what is typed until its init has set the terminal up


def claim_debug_ports(
    ports: Ports, console: Callable[[bytes], None], leave: Callable[[int], None], ready: Callable[[], None]
) -> None:
    """Wire the ports.

    Bytes to 0xe9 go to the console, a value to 0xf4 ends the run with that status (0 to 255), any to 0xf5 is for ready.
    """

    def say(_port: int, _size: int, value: int) -> None:
        console(bytes((value & 0xFF,)))  # a wider OUT spills into ports that nobody has

    def end(_port: int, _size: int, value: int) -> None:
        leave(value & 0xFF)

    def be_ready(_port: int, _size: int, _value: int) -> None:
        ready()

    ports.claim(range(READY, READY + 1), None, be_ready)
    ports.claim(range(DEBUG_CONSOLE, DEBUG_CONSOLE + 1), None, say)
    ports.claim(range(EXIT, EXIT + 1), None, end)
