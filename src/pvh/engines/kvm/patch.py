"""Direct hypercalls without KVM_CAP_XEN_HVM: VMCALL and VMMCALL in the guest's code become `out PORT, al; nop`.

Done in guest RAM, after the build, in the code of executable load segments, and only where an instruction begins: the
three bytes also occur inside immediates and tables. Code is what the section headers call so (Linux keeps .rodata in
its executable segment); without section headers, the whole segment. Where instructions begin is asked of a
disassembler, from many places before the bytes: x86 code falls into step within a few instructions wherever one starts.
Limits: code that the guest loads, unpacks or copies later is not covered; KVM handles that VMCALL itself (it answers
-1000; a software KVM was seen to repeat it for ever), and nobody can tell.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from pvh.build.image import Image
from pvh.build.ram import GuestRam
from pvh.engines.kvm.hypercall_page import NOP, OUT, VMCALL, VMMCALL
from pvh.errors import EngineError
from pvh.hints import TYPE_CHECKING
from pvh.kernel.elf import read_header, read_sections
from pvh.kernel.record import Kernel

if TYPE_CHECKING:
    from pvh.engines.kvm.libcapstone import Decoder

_PF_X = 1
_SHT_PROGBITS = 1
_SHF_EXECINSTR = 1 << 2
_SWEEP = range(16, 64, 3)  # how far before the bytes the sweeps start
_LONGEST = 15  # bytes of an x86 instruction
_MAJORITY = (
    0.75  # of them must come upon the bytes as an instruction; in Debian's kernels 0.9 and more do, or under 0.3
)

_libc = ctypes.CDLL(None)
_libc.memmem.restype = ctypes.c_void_p
_libc.memmem.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)

Span = tuple[int, int]  # guest-physical start and end


def find_sites(image: Image) -> tuple[int, ...]:
    """Return guest-physical addresses of VMCALL and VMMCALL instructions in the kernel's code, sorted."""
    kernel = image.plan.kernel
    code = _code(kernel) or [(s.paddr, s.paddr + s.filesz) for s in kernel.loads if s.flags & _PF_X]
    candidates = [(gpa, span) for span in code for gpa in _candidates(image.ram, span)]
    if not candidates:
        return ()
    decoder = _decoder(kernel.bits)
    found = {gpa for gpa, span in candidates if _begins(decoder, image.ram, gpa, span)}
    decoder.close()
    return tuple(sorted(found))


def patch(image: Image, sites: tuple[int, ...]) -> None:
    """Replace the instruction at each site."""
    for gpa in sites:
        image.ram.write(gpa, OUT + NOP)


def _candidates(ram: GuestRam, span: Span) -> Iterator[int]:
    """Find the three bytes in guest memory, without copying it."""
    start, end = span
    block = ram.block(start, end - start)
    if block is None:
        return
    base = block.host - block.gpa
    for needle in (VMCALL, VMMCALL):
        at = start
        while found := _libc.memmem(base + at, end - at, needle, len(needle)):
            yield found - base
            at = found - base + 1


def _code(kernel: Kernel) -> list[Span]:
    """Return where the sections with instructions lie; nothing if the file names none."""
    if kernel.source.read(0, 4) != b"\x7fELF":
        return []
    sections = read_sections(kernel.source, read_header(kernel.source))
    return [
        (
            load.paddr + section.offset - load.offset,
            load.paddr + min(section.offset - load.offset + section.size, load.filesz),
        )
        for section in sections
        if section.type == _SHT_PROGBITS and section.flags & _SHF_EXECINSTR
        for load in kernel.loads
        if load.flags & _PF_X and load.offset <= section.offset < load.offset + load.filesz
    ]


def _decoder(bits: int) -> Decoder:
    """Prepare for code as wide as the ELF class says. REX prefixes are instructions of one byte to 32-bit eyes."""
    from pvh.engines.kvm import libcapstone  # most small guests have no candidate

    path = libcapstone.library_path()
    if path is None:
        raise EngineError(
            "this KVM does not pass hypercalls on, and finding them in the kernel needs the capstone package",
            hint="pip install capstone, use --engine emulator, or --no-patch if the kernel uses the hypercall page",
        )
    return libcapstone.Decoder(path, bits)


def _begins(decoder: Decoder, ram: GuestRam, gpa: int, code: Span) -> bool:
    """Tell whether a VMCALL or VMMCALL begins at gpa, most sweeps agreeing. None starts before the code does."""
    furthest = min(max(_SWEEP), gpa - code[0])
    window = ram.read(gpa - furthest, min(furthest + _LONGEST, code[1] - gpa + furthest)) or b""
    starts = [furthest - back for back in _SWEEP if back <= furthest] or [0]
    hits, wanted = 0, _MAJORITY * len(starts)
    for tried, start in enumerate(starts, 1):
        hits += decoder.name_at(window, start, furthest) in ("vmcall", "vmmcall")
        if hits >= wanted or hits + len(starts) - tried < wanted:
            break  # the rest cannot change the majority, and a kernel's sites are a share of its start-up
    return hits >= wanted
