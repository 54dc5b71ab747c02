"""How a guest's hypercalls become exits: the instruction that traps, and the stubs of the hypercall page.

With KVM_CAP_XEN_HVM, VMCALL and VMMCALL themselves leave KVM_RUN. Without it KVM answers them in the kernel (-1000),
so a port write stands in: `out PORT, al`, two bytes, and the engine knows each place where it put one. The same
instruction anywhere else is port I/O like any other.
Limits of the port write: at CPL above IOPL it is #GP, where Xen answers -EPERM.
"""

from __future__ import annotations

from pvh.abi.x86 import PAGE_SIZE
from pvh.build.ram import GuestRam
from pvh.engines.kvm import ioctl as kvm
from pvh.record import dataclass, field

# No PVH platform has a device here, and it is none of the ports that debug consoles or I/O delays use.
PORT = 0xEA
OUT = bytes((0xE6, PORT))
NOP = b"\x90"
VMCALL = b"\x0f\x01\xc1"
VMMCALL = b"\x0f\x01\xd9"

STUB_SIZE = 32  # xen/include/public/arch-x86/xen.h: hypercall i is at hypercall_page + i * 32
_OUT_AT = 5  # behind `mov eax, imm32`


def stub(number: int, trap: bytes) -> bytes:
    """Return the stub of one hypercall: mov eax, number; the trapping instruction; ret; int3 to the end."""
    return (b"\xb8" + number.to_bytes(4, "little") + trap + b"\xc3").ljust(STUB_SIZE, b"\xcc")


def intercepted(dev: int) -> bool:
    """Tell whether this KVM hands VMCALL and VMMCALL to user space (KVM_CAP_XEN_HVM, with interception)."""
    return bool(kvm.call(dev, kvm.CHECK_EXTENSION, kvm.CAP_XEN_HVM) & kvm.XEN_HVM_CONFIG_INTERCEPT_HCALL)


@dataclass(slots=True)
class Sites:
    """Where an `out PORT, al` is a hypercall: replaced instructions, and pages that hold the engine's stubs."""

    KEPT = ("patched", "pages")

    patched: frozenset[int] = frozenset()
    pages: set[int] = field(default_factory=set[int])

    def __bool__(self) -> bool:
        return bool(self.patched or self.pages)

    def __contains__(self, gpa: int) -> bool:
        return gpa in self.patched or (gpa % STUB_SIZE == _OUT_AT and gpa & -PAGE_SIZE in self.pages)

    def note(self, ram: GuestRam, gpa: int, size: int) -> None:
        """Look at pages the host wrote: one that begins with stub 0 is a hypercall page from now on."""
        first = stub(0, OUT)
        for page in range(gpa & -PAGE_SIZE, gpa + size, PAGE_SIZE):
            if ram.read(page, STUB_SIZE) == first:
                self.pages.add(page)
            else:
                self.pages.discard(page)
