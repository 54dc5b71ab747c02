"""The VMCB that carries a CpuState into the emulated processor, and the scratch memory it lies in.

The emulated AMD processor loads every register of a VMRUN's save area, hidden segment parts included, and afterwards
reports the intercepts selected here as exits (AMD APM vol. 2, appendix B: layout; chapter 15: VMRUN).
"""

from __future__ import annotations

import ctypes
import mmap
import struct

from pvh.build.cpu_state import CpuState, SegmentRegister, TableRegister
from pvh.engines.emulator.libunicorn import PROT_EXEC, PROT_READ, PROT_WRITE, Handle

# The library's TLB keeps 52 bits of a physical address: code can be fetched at 1 << 51, while data at 1 << 52 can be
# reached by VMRUN alone, not by any CR3 or page-table entry of the guest. An entry that points at the code faults, as
# its reserved bits start at 40.
CODE = 1 << 51
DATA = 1 << 52
_VMCB = 0x0000
_HOST_SAVE = 0x1000
_MSR_MAP = 0x2000
EMPTY_PAGE = DATA + 0x4000
_DATA_SIZE = 0x5000

# vmload ; vmrun, with the VMCB's address in RAX
_ENTRY_CODE = b"\x0f\x01\xda\x0f\x01\xd8"

# Exit codes (AMD APM vol. 2, appendix C)
EXIT_READ_CR8 = 0x08
EXIT_WRITE_CR0 = 0x10
EXIT_WRITE_CR4 = 0x14
EXIT_WRITE_CR8 = 0x18
EXIT_WRITE_DR0 = 0x30
EXIT_EXCEPTION = 0x40
EXIT_INTR = 0x60
EXIT_RDTSC = 0x6E  # of RDTSCP, too
EXIT_RDPMC = 0x6F
EXIT_RSM = 0x73
EXIT_SWINT = 0x75
EXIT_HLT = 0x78
EXIT_INVLPGA = 0x7A
EXIT_MSR = 0x7C
EXIT_SHUTDOWN = 0x7F
EXIT_VMRUN = 0x80
EXIT_VMMCALL = 0x81
EXIT_VMLOAD = 0x82
EXIT_VMSAVE = 0x83
EXIT_STGI = 0x84
EXIT_CLGI = 0x85
EXIT_SKINIT = 0x86
EXIT_ICEBP = 0x88
EXIT_MONITOR = 0x8A
EXIT_MWAIT = 0x8B
EXIT_MWAIT_ARMED = 0x8C
EXIT_XSETBV = 0x8D

SVM_INSTRUCTIONS = (EXIT_INVLPGA, EXIT_VMRUN, EXIT_VMLOAD, EXIT_VMSAVE, EXIT_STGI, EXIT_CLGI, EXIT_SKINIT)
HIDDEN_INSTRUCTIONS = (EXIT_RSM, EXIT_MONITOR, EXIT_MWAIT, EXIT_MWAIT_ARMED, EXIT_XSETBV)
_INTERCEPTS = (
    EXIT_RDPMC, EXIT_SWINT, EXIT_HLT, EXIT_MSR, EXIT_SHUTDOWN, EXIT_VMMCALL, EXIT_ICEBP,
    *SVM_INSTRUCTIONS, *HIDDEN_INSTRUCTIONS,
)  # fmt: skip
# Debug registers are kept but not armed: the library ends a run when one hits. DR4 and DR5 are aliases of 6 and 7.
_DR_WRITES = 0xFF

_CONTROL_INTERCEPTS = struct.Struct("<HHHHIQ")  # CR reads, CR writes, DR reads, DR writes, exceptions, instructions
_SEGMENT = struct.Struct("<HHIQ")
_QUAD = struct.Struct("<Q")

_MSRPM_BASE = 0x48
_TSC_OFFSET = 0x50
_EXIT_INFO_2 = 0x80

_SEGMENTS = {"es": 0x400, "cs": 0x410, "ss": 0x420, "ds": 0x430, "fs": 0x440, "gs": 0x450, "ldtr": 0x470, "tr": 0x490}
_TABLES = {"gdtr": 0x460, "idtr": 0x480}
_REGISTERS = {
    "efer": 0x4D0, "cr4": 0x548, "cr3": 0x550, "cr0": 0x558, "dr7": 0x560, "dr6": 0x568, "rflags": 0x570, "rip": 0x578,
    "cr2": 0x640,
}  # fmt: skip
_RSP = 0x5D8
_RAX = 0x5F8
# What VMLOAD takes besides segments; all zero at reset.
SYSCALL_MSRS = {
    "star": 0x600, "lstar": 0x608, "cstar": 0x610, "sfmask": 0x618, "kernel_gs_base": 0x620,
    "sysenter_cs": 0x628, "sysenter_esp": 0x630, "sysenter_eip": 0x638,
}  # fmt: skip

MSR_READ, MSR_WRITE = 1, 2


class Scratch:
    """Host memory with the VMCB, the MSR permission map and the entry code; map() shows it to a handle."""

    def __init__(self, intercepts: tuple[int, ...] = ()) -> None:
        """intercepts: exit codes of instructions to catch beside those that always are."""
        self._intercepts = (*_INTERCEPTS, *intercepts)
        self._code = mmap.mmap(-1, mmap.PAGESIZE)
        self._code[: len(_ENTRY_CODE)] = _ENTRY_CODE
        self._data = mmap.mmap(-1, _DATA_SIZE)
        # Until allow_msr() everything is intercepted.
        self._data[_MSR_MAP : _MSR_MAP + 0x1800] = b"\xff" * 0x1800

    def map(self, handle: Handle) -> None:
        """Put it into a handle's address space and make VMRUN usable there."""
        code = ctypes.addressof(ctypes.c_char.from_buffer(self._code))
        data = ctypes.addressof(ctypes.c_char.from_buffer(self._data))
        handle.map_memory(CODE, mmap.PAGESIZE, code, PROT_READ | PROT_EXEC)
        handle.map_memory(DATA, _DATA_SIZE, data, PROT_READ | PROT_WRITE)

    def allow_msr(self, index: int, access: int) -> None:
        """Let the library handle MSR_READ or MSR_WRITE (or both) of an MSR: one below 0x2000, or 0xc0000000 and up."""
        byte, shift = _msr_bit(index)
        self._data[byte] &= ~(access << shift)

    def trap_msr(self, index: int, access: int) -> None:
        """Undo allow_msr()."""
        byte, shift = _msr_bit(index)
        self._data[byte] |= access << shift

    @property
    def fault_address(self) -> int:
        """Linear address of the page fault that was intercepted last; CR2 is left to the interceptor."""
        return int(_QUAD.unpack_from(self._data, _EXIT_INFO_2)[0])

    def write(self, state: CpuState, *, tsc_offset: int = 0, msrs: dict[str, int] | None = None) -> int:
        """Fill the VMCB from a state and return its address. General registers but RSP and RAX are not in a VMCB."""
        page = bytearray(mmap.PAGESIZE)
        instructions = sum(1 << (code - EXIT_INTR) for code in self._intercepts)
        cr_writes = sum(1 << (code & 15) for code in (EXIT_WRITE_CR0, EXIT_WRITE_CR4, EXIT_WRITE_CR8))
        _CONTROL_INTERCEPTS.pack_into(page, 0, 1 << EXIT_READ_CR8, cr_writes, 0, _DR_WRITES, 0xFFFFFFFF, instructions)
        _QUAD.pack_into(page, _MSRPM_BASE, DATA + _MSR_MAP)
        _QUAD.pack_into(page, _TSC_OFFSET, tsc_offset % 2**64)
        for name, offset in _SEGMENTS.items():
            segment: SegmentRegister = getattr(state, name)
            _SEGMENT.pack_into(page, offset, segment.selector, segment.attributes, segment.limit, segment.base)
        for name, offset in _TABLES.items():
            table: TableRegister = getattr(state, name)
            _SEGMENT.pack_into(page, offset, 0, 0, table.limit, table.base)
        for name, offset in _REGISTERS.items():
            _QUAD.pack_into(page, offset, getattr(state, name))
        for name, value in (msrs or {}).items():
            _QUAD.pack_into(page, SYSCALL_MSRS[name], value)
        _QUAD.pack_into(page, _RSP, state.gprs[4])
        _QUAD.pack_into(page, _RAX, state.gprs[0])
        self._data[_VMCB : _VMCB + len(page)] = page
        return DATA + _VMCB


HOST_SAVE_ADDRESS = DATA + _HOST_SAVE


def _msr_bit(index: int) -> tuple[int, int]:
    """Return the byte of the permission map and the shift of an MSR's two bits in it (AMD APM vol. 2, 15.11)."""
    position = (0x2000 + (index & 0x1FFF) if index >> 16 == 0xC000 else index & 0x1FFF) * 2
    return _MSR_MAP + position // 8, position % 8
