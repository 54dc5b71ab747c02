"""The registers of a stopped processor, hidden segment parts and CPL included: a saved context, read and written."""

from __future__ import annotations

import struct

from pvh.abi import x86
from pvh.build.cpu_state import CpuState, SegmentRegister, TableRegister
from pvh.engines.emulator import calibrate as cal
from pvh.engines.emulator.calibrate import Layout
from pvh.engines.emulator.libunicorn import REG_RFLAGS, Context, Handle

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
ES, CS, SS, DS, FS, GS = range(6)

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_ALL_GPRS = struct.Struct("<16Q")
_SEGMENT = struct.Struct("<IxxxxQII")
_PAIR = struct.Struct("<QQ")
_TABLE = struct.Struct("<QI")
_M64 = 2**64 - 1

# RFLAGS bits that exist; bit 1 is always set.
_FLAGS_MASK = 0x3F7FD7


class Registers:
    """A snapshot that can be changed and put back. The library computes RFLAGS lazily, so they go through its API."""

    def __init__(self, handle: Handle, layout: Layout) -> None:
        self._handle = handle
        self._context = Context(handle)
        self._bytes = self._context.bytes
        self._at = layout
        self._flags: int | None = None
        self._new_flags: int | None = None

    def free(self) -> None:
        """Give the snapshot's memory back."""
        self._bytes = memoryview(b"")
        self._context.free()

    def save(self) -> None:
        """Take the processor's registers. Changes that were not committed are gone."""
        self._flags = self._new_flags = None
        self._context.save()

    def keep_flags(self) -> None:
        """Have RFLAGS in the snapshot while the processor still has them."""
        self._flags = self.flags

    def commit(self) -> None:
        """Put the changed registers into the processor."""
        self._context.restore()
        if self._new_flags is not None:
            self._handle.write(REG_RFLAGS, self._new_flags)
            self._flags, self._new_flags = self._new_flags, None

    def capture(self) -> tuple[bytes, int]:
        """Return all that the library keeps of the processor, as this snapshot has it, and RFLAGS.

        Before the first general register the record has the library's own affairs; behind it are values only.
        """
        return bytes(self._bytes[self._at.gprs :]), self.flags

    def apply(self, state: tuple[bytes, int]) -> None:
        """Make this the snapshot that was captured, by the same release of the library. commit() is the caller's."""
        self._bytes[self._at.gprs :] = state[0]
        self._flags, self._new_flags = state[1], None

    def gpr(self, index: int) -> int:
        """Return a general register, all 64 bits."""
        return int(_U64.unpack_from(self._bytes, self._at.gprs + 8 * index)[0])

    def set_gpr(self, index: int, value: int) -> None:
        """Set a general register, all 64 bits."""
        _U64.pack_into(self._bytes, self._at.gprs + 8 * index, value & _M64)

    @property
    def rip(self) -> int:
        """Offset of the next instruction in CS."""
        return int(_U64.unpack_from(self._bytes, self._at.rip)[0])

    @property
    def flags(self) -> int:
        """RFLAGS."""
        if self._new_flags is not None:
            return self._new_flags
        if self._flags is None:
            self._flags = self._handle.read(REG_RFLAGS) & _FLAGS_MASK | x86.RFLAGS_ONE
        return self._flags

    @flags.setter
    def flags(self, value: int) -> None:
        self._new_flags = value & _FLAGS_MASK | x86.RFLAGS_ONE

    def cr(self, index: int) -> int:
        """Return CR0, CR2, CR3 or CR4."""
        return int(_U64.unpack_from(self._bytes, self._at.cr + 8 * index)[0])

    @property
    def cr3_cr4(self) -> tuple[int, int]:
        """CR3 and CR4 together: a page walk needs both."""
        cr3, cr4 = _PAIR.unpack_from(self._bytes, self._at.cr + 24)
        return cr3, cr4

    def set_cr2(self, value: int) -> None:
        """Set CR2. The other control registers have side effects: write them through the handle."""
        _U64.pack_into(self._bytes, self._at.cr + 16, value)

    def dr(self, index: int) -> int:
        """Return a debug register."""
        return int(_U64.unpack_from(self._bytes, self._at.dr + 8 * index)[0])

    def set_dr(self, index: int, value: int) -> None:
        """Set a debug register without arming a breakpoint."""
        _U64.pack_into(self._bytes, self._at.dr + 8 * index, value)

    @property
    def efer(self) -> int:
        """EFER."""
        return int(_U64.unpack_from(self._bytes, self._at.efer)[0])

    @property
    def tsc_offset(self) -> int:
        """What the library adds to the host's time stamp counter."""
        return int(_U64.unpack_from(self._bytes, self._at.tsc_offset)[0])

    @tsc_offset.setter
    def tsc_offset(self, value: int) -> None:
        _U64.pack_into(self._bytes, self._at.tsc_offset, value & _M64)

    @property
    def error_code(self) -> int:
        """Error code of the exception, or EXITINFO1 of the intercept, that stopped the processor."""
        return int(_U32.unpack_from(self._bytes, self._at.error_code)[0])

    def syscall_msr(self, name: str) -> int:
        """Return `star`, `lstar`, `cstar` or `sfmask`."""
        return int(_U64.unpack_from(self._bytes, getattr(self._at, name))[0])

    @property
    def hflags(self) -> int:
        """The library's summary of mode bits."""
        return int(_U32.unpack_from(self._bytes, self._at.hflags)[0])

    @property
    def cpl(self) -> int:
        """Current privilege level."""
        return self.hflags & cal.HF_CPL

    @property
    def bits(self) -> int:
        """Width of the running code: 64, 32 or 16."""
        hflags = self.hflags
        return 64 if hflags & cal.HF_CS64 else 32 if hflags & cal.HF_CS32 else 16

    @property
    def long_mode(self) -> bool:
        """Long mode is active, in 64-bit or compatibility code."""
        return bool(self.hflags & cal.HF_LMA)

    @property
    def protected(self) -> bool:
        """CR0.PE."""
        return bool(self.hflags & cal.HF_PE)

    @property
    def interrupt_shadow(self) -> bool:
        """The next instruction follows STI or a load of SS: no interrupt may come before it."""
        return bool(self.hflags & cal.HF_INHIBIT_IRQ)

    @property
    def in_nmi(self) -> bool:
        """An NMI was taken and no IRET has followed: further ones are held back."""
        return bool(_U32.unpack_from(self._bytes, self._at.hflags + 4)[0] & cal.HF2_NMI)

    def begin_nmi(self) -> None:
        """Hold NMIs back until IRET, which the library takes note of."""
        hflags2: int = _U32.unpack_from(self._bytes, self._at.hflags + 4)[0]
        _U32.pack_into(self._bytes, self._at.hflags + 4, hflags2 | cal.HF2_NMI)
        self.commit()

    @property
    def linear_rip(self) -> int:
        """Linear address of the next instruction."""
        return self.rip if self.bits == 64 else self.segment(CS).base + self.rip & 0xFFFFFFFF

    def segment(self, index: int) -> SegmentRegister:
        """Return a segment register, in encoding order."""
        return self._described(self._at.segments + cal.SEGMENT_STRIDE * index)

    @property
    def tr(self) -> SegmentRegister:
        """Task register."""
        return self._described(self._at.tr)

    @property
    def ldtr(self) -> SegmentRegister:
        """LDT register."""
        return self._described(self._at.ldtr)

    def _described(self, at: int) -> SegmentRegister:
        selector, base, limit, flags = _SEGMENT.unpack_from(self._bytes, at)
        return SegmentRegister(selector & 0xFFFF, base, limit, cal.packed_attributes(flags))

    @property
    def gdtr(self) -> TableRegister:
        """GDTR."""
        return TableRegister(*_TABLE.unpack_from(self._bytes, self._at.gdtr))

    @property
    def idtr(self) -> TableRegister:
        """IDTR."""
        return TableRegister(*_TABLE.unpack_from(self._bytes, self._at.idtr))

    def set_segment(self, index: int, value: SegmentRegister) -> None:
        """Set a segment register with its hidden part. Call set_mode() after the last one."""
        flags = cal.descriptor_flags(value.attributes)
        at = self._at.segments + cal.SEGMENT_STRIDE * index
        _SEGMENT.pack_into(self._bytes, at, value.selector, value.base, value.limit, flags)

    def set_mode(self, cpl: int) -> None:
        """Set the CPL and bring the mode bits in line with the segments; ends an interrupt shadow."""
        old = self.hflags
        cs, ss = self.segment(CS), self.segment(SS)
        new = old & ~(cal.HF_CPL | cal.HF_INHIBIT_IRQ | cal.HF_CS32 | cal.HF_SS32 | cal.HF_ADDSEG | cal.HF_CS64)
        if old & cal.HF_LMA and cs.attributes & x86.AR_L:
            new |= cal.HF_CS64 | cal.HF_CS32 | cal.HF_SS32
        else:
            new |= cal.HF_CS32 if cs.attributes & x86.AR_DB else 0
            new |= cal.HF_SS32 if ss.attributes & x86.AR_DB else 0
            flat = new & cal.HF_CS32 and old & cal.HF_PE and not self.flags & x86.RFLAGS_VM
            if not flat or self.segment(DS).base or self.segment(ES).base or ss.base:
                new |= cal.HF_ADDSEG
        _U32.pack_into(self._bytes, self._at.hflags, new | cpl)

    def end_shadow(self) -> None:
        """An instruction was executed: the interrupt shadow is over."""
        _U32.pack_into(self._bytes, self._at.hflags, self.hflags & ~cal.HF_INHIBIT_IRQ)

    def state(self, rip: int, mtrr_def_type: int) -> CpuState:
        """Return everything as the record other rooms use."""
        segments = {name: self.segment(index) for index, name in enumerate(cal.SEGMENT_ORDER)}
        return CpuState(
            gprs=_ALL_GPRS.unpack_from(self._bytes, self._at.gprs),
            rip=rip,
            rflags=self.flags,
            tr=self.tr,
            ldtr=self.ldtr,
            gdtr=self.gdtr,
            idtr=self.idtr,
            cr0=self.cr(0),
            cr2=self.cr(2),
            cr3=self.cr(3),
            cr4=self.cr(4),
            efer=self.efer,
            dr0=self.dr(0),
            dr1=self.dr(1),
            dr2=self.dr(2),
            dr3=self.dr(3),
            dr6=self.dr(6),
            dr7=self.dr(7),
            mtrr_def_type=mtrr_def_type,
            msrs=(),
            **segments,
        )
