"""The hypercall page: 128 stubs of 32 bytes (xen/arch/x86/hvm/{vmx/vmx,svm/svm}.c)."""

from __future__ import annotations

from collections.abc import Callable

from pvh.abi.hypercall import IRET, STUB_SIZE, STUBS
from pvh.abi.x86 import PAGE_SIZE

_UD2 = b"\x0f\x0b"


def hypercall_page(stub: Callable[[int], bytes]) -> bytes:
    """Return the page; stub(number) is the engine's code for one call: mov eax, number; <trap>; ret."""
    page = b"".join((_UD2 if number == IRET else stub(number)).ljust(STUB_SIZE, b"\xcc") for number in range(STUBS))
    assert len(page) == PAGE_SIZE
    return page
