"""Direct hypercalls without KVM_CAP_XEN_HVM: VMCALL and VMMCALL in the guest's code become `out PORT, al; nop`.

Done in guest RAM, after the build, in the bytes of executable load segments, and only where an instruction begins: the
three bytes also occur inside immediates and tables. Whether one begins there is asked of a disassembler, starting at
many places before it: x86 code falls into step within a few instructions wherever one starts, data does not.
Limits: code that the guest loads, unpacks or copies later is not covered; KVM answers it -1000, unseen by anybody.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from pvh.build.image import Image
from pvh.build.ram import GuestRam
from pvh.engines.kvm.hypercall_page import NOP, OUT, VMCALL, VMMCALL

_PF_X = 1
_SWEEP = range(16, 64)  # how far before a candidate the sweeps start
_MAJORITY = 0.75  # of the sweeps must come upon it as an instruction; true sites reach 0.9, immediates and tables 0.4

_libc = ctypes.CDLL(None)
_libc.memmem.restype = ctypes.c_void_p
_libc.memmem.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)


def find_sites(image: Image) -> tuple[int, ...]:
    """Return guest-physical addresses of VMCALL and VMMCALL instructions in the executable load segments, sorted."""
    spans = [(s.paddr, s.filesz) for s in image.plan.kernel.loads if s.flags & _PF_X and s.filesz]
    candidates = [(gpa, span) for span in spans for gpa in _candidates(image.ram, *span)]
    if not candidates:
        return ()
    begins = _Disassembler()
    wide = image.plan.kernel.bits == 64
    return tuple(sorted({gpa for gpa, span in candidates if begins.at(image.ram, gpa, span[0], wide=wide)}))


def patch(image: Image, sites: tuple[int, ...]) -> None:
    """Replace the instruction at each site."""
    for gpa in sites:
        image.ram.write(gpa, OUT + NOP)


def _candidates(ram: GuestRam, start: int, size: int) -> Iterator[int]:
    """Find the three bytes in [start, start + size) of guest memory, without copying it."""
    block = ram.block(start, size)
    if block is None:
        return
    first = block.host + start - block.gpa
    for needle in (VMCALL, VMMCALL):
        at = first
        while found := _libc.memmem(at, first + size - at, needle, len(needle)):
            yield start + found - first
            at = found + 1


class _Disassembler:
    """Capstone, for one question."""

    def __init__(self) -> None:
        import capstone  # 60 ms, and most small guests have no candidate

        self._of = {}
        for wide, mode in ((True, capstone.CS_MODE_64), (False, capstone.CS_MODE_32)):
            self._of[wide] = capstone.Cs(capstone.CS_ARCH_X86, mode)
            self._of[wide].skipdata = True

    def at(self, ram: GuestRam, gpa: int, start: int, *, wide: bool) -> bool:
        """Tell whether an instruction begins at gpa, in code that begins at start."""
        furthest = min(max(_SWEEP), gpa - start)
        code = ram.read(gpa - furthest, furthest + len(VMCALL)) or b""
        starts = [furthest - back for back in _SWEEP if back <= furthest] or [0]
        hits = sum(self._meets(code[at:], len(code) - len(VMCALL) - at, wide=wide) for at in starts)
        return hits >= _MAJORITY * len(starts)

    def _meets(self, code: bytes, position: int, *, wide: bool) -> bool:
        for address, size, mnemonic, _ in self._of[wide].disasm_lite(code, 0):
            if address == position:
                return mnemonic in ("vmcall", "vmmcall")
            if address + size > position:
                return False
        return False
