"""Where the library keeps what its interface does not show: proved at start-up, never presumed.

Delivering an exception means changing hidden segment state and the CPL, which only the bytes of a uc_context hold;
their layout is private. So two states full of distinct values are loaded by VMRUN, and each field is looked for in the
bytes: one that is not found in exactly one place in both makes the engine refuse.
"""

from __future__ import annotations

import struct

from pvh.abi import x86
from pvh.build.cpu_state import CpuState, SegmentRegister, TableRegister
from pvh.engines.emulator import libunicorn as uc
from pvh.engines.emulator.vmcb import CODE, EMPTY_PAGE, EXIT_EXCEPTION, HOST_SAVE_ADDRESS, SYSCALL_MSRS, Scratch
from pvh.errors import EngineError
from pvh.record import dataclass

# hflags: the library's summary of mode bits. Public in QEMU's target/i386/cpu.h since 2003.
HF_CPL = 3
HF_INHIBIT_IRQ = 1 << 3
HF_CS32 = 1 << 4
HF_SS32 = 1 << 5
HF_ADDSEG = 1 << 6
HF_PE = 1 << 7
HF_LMA = 1 << 14
HF_CS64 = 1 << 15
HF_GUEST = 1 << 21
# The second word of mode bits, which follows.
HF2_GIF = 1
HF2_NMI = 1 << 2

# Order of the library's segment array, which is the encoding's.
SEGMENT_ORDER = ("es", "cs", "ss", "ds", "fs", "gs")
_SEGMENT = struct.Struct("<IxxxxQII")  # selector, base, limit, flags
SEGMENT_STRIDE = _SEGMENT.size


@dataclass(frozen=True, slots=True)
class Layout:
    """Byte offsets in a uc_context. Arrays give their first element: gprs, cr and dr of 8 bytes, segments of 24."""

    gprs: int
    rip: int
    segments: int
    ldtr: int
    tr: int
    gdtr: int
    idtr: int
    cr: int
    dr: int
    efer: int
    hflags: int
    error_code: int
    tsc_offset: int
    star: int
    lstar: int
    cstar: int
    sfmask: int


def descriptor_flags(attributes: int) -> int:
    """Turn packed attributes into the descriptor word's bits as the library keeps them."""
    return (attributes & 0xFF) << 8 | (attributes & 0xF00) << 12


def packed_attributes(flags: int) -> int:
    """Undo descriptor_flags()."""
    return flags >> 8 & 0xFF | flags >> 12 & 0xF00


def _marker(run: int, field: int, bits: int = 64) -> int:
    """Return a value that occurs nowhere else: canonical as an address, page aligned, and odd to the eye."""
    return (0x0000_5A00_0000_0000 | run << 40 | field << 32 | 0xC3A5_0000 + (field << 12)) & (1 << bits) - 1


def _segment(run: int, field: int, attributes: int) -> SegmentRegister:
    return SegmentRegister(0x1230 + field * 8 + run, _marker(run, field), 0x00ABC000 + field * 0x111 + run, attributes)


def _probe_state(run: int) -> CpuState:
    """Return a state whose first fetch faults: paging on, no page present."""
    cpl = 3 if run else 0
    data = 0xC93 | cpl << 5
    es, ss, ds, fs, gs = (_segment(run, 16 + index, data) for index in range(5))
    return CpuState(
        gprs=tuple(_marker(run, index) for index in range(16)),
        rip=_marker(run, 32, 32),
        cs=_segment(run, 24, 0xC9B | cpl << 5),
        tr=_segment(run, 25, 0x08B),
        ldtr=_segment(run, 26, 0x082),
        gdtr=TableRegister(_marker(run, 27), 0x1111 + run),
        idtr=TableRegister(_marker(run, 28), 0x2222 + run),
        cr0=x86.CR0_PE | x86.CR0_ET | x86.CR0_PG | x86.CR0_WP,
        cr2=_marker(run, 29),
        cr3=EMPTY_PAGE,
        cr4=x86.CR4_SMEP | x86.CR4_DE,
        dr6=_marker(run, 30),
        dr7=_marker(run, 31),
        efer=_marker(run, 52),
        es=es,
        ss=ss,
        ds=ds,
        fs=fs,
        gs=gs,
    )


def _msrs(run: int) -> dict[str, int]:
    return {name: _marker(run, 40 + index) for index, name in enumerate(SYSCALL_MSRS)}


def _fields(run: int) -> dict[str, bytes]:
    """Return what each array and field of the layout must look like after the probe."""
    state, msrs = _probe_state(run), _msrs(run)

    def described(*registers: SegmentRegister) -> bytes:
        return b"".join(_SEGMENT.pack(r.selector, r.base, r.limit, descriptor_flags(r.attributes)) for r in registers)

    def quads(*values: int) -> bytes:
        return struct.pack(f"<{len(values)}Q", *values)

    hflags = HF_CS32 | HF_SS32 | HF_ADDSEG | HF_PE | HF_GUEST | state.ss.attributes >> 5 & 3
    return {
        "gprs": quads(*state.gprs, state.rip),
        "segments": described(*(getattr(state, name) for name in SEGMENT_ORDER)),
        "ldtr": described(state.ldtr),
        "tr": described(state.tr),
        "gdtr": struct.pack("<QI", state.gdtr.base, state.gdtr.limit),
        "idtr": struct.pack("<QI", state.idtr.base, state.idtr.limit),
        "cr": quads(state.cr0, 0, state.cr2, state.cr3, state.cr4),
        "dr": quads(state.dr6, state.dr7),
        "hflags": struct.pack("<II", hflags, HF2_GIF),
        "efer": quads(state.efer),
        "tsc_offset": quads(_marker(run, 50)),
        **{name: quads(msrs[name]) for name in ("star", "lstar", "cstar", "sfmask")},
    }


def _probe(handle: uc.Handle, scratch: Scratch, context: uc.Context, run: int) -> bytes:
    """Load probe state `run`, let its first fetch fault, and return the context's bytes."""
    state = _probe_state(run)
    address = scratch.write(state, tsc_offset=_marker(run, 50), msrs=_msrs(run))
    for register, value in zip(uc.REG_GPRS, state.gprs, strict=True):
        handle.write(register, value)
    handle.write(uc.REG_RAX, address)
    handle.start(CODE)
    context.save()
    fault = scratch.fault_address
    wanted = state.cs.base + state.rip
    if fault != wanted:
        raise EngineError(
            "the unicorn library does not load a state as it should", found=f"{fault:#x}", wanted=f"{wanted:#x}"
        )
    return bytes(context.bytes)


def _places(data: bytes, wanted: bytes, step: int) -> set[int]:
    found: set[int] = set()
    at = data.find(wanted)
    while at >= 0:
        if at % step == 0:
            found.add(at)
        at = data.find(wanted, at + 1)
    return found


def _locate(name: str, dumps: tuple[bytes, bytes], wanted: tuple[bytes, bytes], step: int = 8) -> int:
    places = {at for at in _places(dumps[0], wanted[0], step) if dumps[1].startswith(wanted[1], at)}
    if len(places) != 1:
        raise EngineError(
            f"this unicorn library keeps {name} where the engine cannot find it",
            found=f"{len(places)} places",
            wanted="1",
            hint="use the unicorn release the package was tested with",
        )
    return places.pop()


def enable_svm(handle: uc.Handle, scratch: Scratch) -> None:
    """Show the scratch memory to a handle and allow VMRUN."""
    scratch.map(handle)
    handle.write_msr(x86.MSR_VM_HSAVE_PA, HOST_SAVE_ADDRESS)
    # With LME on the host side a state with paging but without PAE would be taken for a switch to long mode.
    handle.write_msr(x86.MSR_EFER, x86.EFER_SVME)


def find_layout() -> Layout:
    """Find the layout with a handle of its own. Raises EngineError naming the field that cannot be found."""
    handle, scratch = uc.Handle(), Scratch()
    numbers: list[int] = []

    def on_interrupt(_uc: int, number: int, _data: int) -> None:
        numbers.append(number)
        handle.stop()

    try:
        enable_svm(handle, scratch)
        handle.hook(uc.HOOK_INTR, uc.IntrHook(on_interrupt))
        host = uc.Context(handle)
        context = uc.Context(handle)
        first = _probe(handle, scratch, context, 0)
        host.restore()
        second = _probe(handle, scratch, context, 1)
        context.free()
        host.free()
    finally:
        handle.close()
    page_fault = 0x100 + EXIT_EXCEPTION + x86.PF
    if numbers != [page_fault, page_fault]:
        raise EngineError(
            "the unicorn library does not report intercepts as it should",
            found=", ".join(map(hex, numbers)),
            wanted=hex(page_fault),
        )
    return _layout((first, second))


def _layout(dumps: tuple[bytes, bytes]) -> Layout:
    """Find every field in the two probes' bytes."""
    fields = (_fields(0), _fields(1))
    at = {
        name: _locate(name, dumps, (fields[0][name], fields[1][name]), 4 if name == "hflags" else 8)
        for name in fields[0]
    }
    # Fetch of a page that is not present, from CPL 0 and from CPL 3 (SDM vol. 3, 4.7): I/D is reported with SMEP.
    error_code = _locate("the error code", dumps, (struct.pack("<I", 0x10), struct.pack("<I", 0x14)), 4)
    # The probe sees DR6 and DR7, and RIP behind the general registers.
    return Layout(**at | {"dr": at["dr"] - 6 * 8}, rip=at["gprs"] + 16 * 8, error_code=error_code)
