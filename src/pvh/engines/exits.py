"""What an engine reports while a guest runs, and what it wants back.

Each exit is given to the sink of Vcpu.run; the sink's return value is the engine's answer to the guest:
PortIn, MmioRead, Hypercall, MsrRead: an unsigned integer. MsrRead and MsrWrite: None means #GP. Otherwise ignored.
"""

from __future__ import annotations

from collections.abc import Callable

from pvh.record import dataclass


@dataclass(slots=True)
class PortIn:
    """IN of size 1, 2 or 4 bytes; each step of an INS is one of these."""

    port: int
    size: int


@dataclass(slots=True)
class PortOut:
    """OUT of size 1, 2 or 4 bytes; each step of an OUTS is one of these."""

    port: int
    size: int
    value: int


@dataclass(slots=True)
class MmioRead:
    """A load of 1, 2, 4 or 8 bytes from a guest-physical address that is not memory."""

    address: int
    size: int


@dataclass(slots=True)
class MmioWrite:
    """A store of 1, 2, 4 or 8 bytes to a guest-physical address that is not memory."""

    address: int
    size: int
    value: int


@dataclass(slots=True)
class Hypercall:
    """VMCALL, VMMCALL or a hypercall-page stub. bits: width of the calling code (64, 32 or 16); cpl: its privilege.

    args: rdi rsi rdx r10 r8 in 64-bit code, ebx ecx edx esi edi (zero-extended) elsewhere. The answer goes to rax/eax.
    """

    number: int
    args: tuple[int, int, int, int, int]
    bits: int
    cpl: int


@dataclass(slots=True)
class MsrRead:
    """RDMSR of a register the engine does not own."""

    index: int


@dataclass(slots=True)
class MsrWrite:
    """WRMSR of a register the engine does not own."""

    index: int
    value: int


@dataclass(slots=True)
class Halt:
    """HLT (only where traits.sees_halt). wakes: interrupts are enabled, so something may end it."""

    wakes: bool


@dataclass(slots=True)
class Shutdown:
    """A triple fault. The vCPU does not run again; its registers are as the fault left them."""

    detail: str = ""


@dataclass(slots=True)
class Broken:
    """The engine met something it cannot execute: an emulation failure of KVM, an unsupported instruction."""

    detail: str


@dataclass(slots=True)
class Break:
    """A debugger's breakpoint: the vCPU is about to execute the instruction at a linear address."""

    address: int


Exit = PortIn | PortOut | MmioRead | MmioWrite | Hypercall | MsrRead | MsrWrite | Halt | Shutdown | Broken | Break
Sink = Callable[[Exit], int | None]
