"""The two debug ports: a console byte at 0xe9, and an exit status at 0xf4."""

from __future__ import annotations

from collections.abc import Callable

from pvh.devices.ports import Ports

DEBUG_CONSOLE = 0xE9  # XEN_HVM_DEBUGCONS_IOPORT (xen/include/public/arch-x86/xen.h), and Bochs'
EXIT = 0xF4  # QEMU's isa-debug-exit by custom; here the value itself is the status


def claim_debug_ports(ports: Ports, console: Callable[[bytes], None], leave: Callable[[int], None]) -> None:
    """Wire both ports: bytes to 0xe9 go to the console, a value to 0xf4 ends the run with that status (0 to 255)."""

    def say(_port: int, _size: int, value: int) -> None:
        console(bytes((value & 0xFF,)))  # a wider OUT spills into ports that nobody has

    def end(_port: int, _size: int, value: int) -> None:
        leave(value & 0xFF)

    ports.claim(range(DEBUG_CONSOLE, DEBUG_CONSOLE + 1), None, say)
    ports.claim(range(EXIT, EXIT + 1), None, end)
