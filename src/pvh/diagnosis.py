"""explain: what a person wants to know after a run that went wrong."""

from __future__ import annotations

from pvh.abi import x86
from pvh.build.cpu_state import GPR_NAMES
from pvh.build.linear import LinearFault, LinearMemory
from pvh.hints import TYPE_CHECKING
from pvh.symbols import Symbols

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pvh.build.cpu_state import CpuState
    from pvh.build.image import Image
    from pvh.kernel.record import Segment
    from pvh.outcome import Outcome

_CR0 = ("PE", "MP", "EM", "TS", "ET", "NE", *[""] * 10, "WP", "", "AM", *[""] * 10, "NW", "CD", "PG")
_CR4 = (
    "VME", "PVI", "TSD", "DE", "PSE", "PAE", "MCE", "PGE", "PCE", "OSFXSR", "OSXMMEXCPT", "UMIP", "LA57", "", "", "",
    "FSGSBASE", "PCIDE", "OSXSAVE", "", "SMEP", "SMAP",
)  # fmt: skip
_EFER = ("SCE", *[""] * 7, "LME", "", "LMA", "NX", "SVME")
_RFLAGS = (
    "CF", "", "PF", "", "AF", "", "ZF", "SF", "TF", "IF", "DF", "OF", "", "", "NT", "", "RF", "VM", "AC", "", "", "ID",
)  # fmt: skip


def explain(outcome: Outcome, image: Image) -> list[str]:
    """Return lines for a person: the cause, files that changed, and where the guest stood if it failed.

    Call it before the image's RAM is closed. Addresses are linear unless a line says otherwise.
    """
    lines = [f"{outcome.ending}: {outcome.reason}"] if outcome.failed else []
    lines += [f"while the guest ran, {change}" for change in outcome.changed]
    return lines + where(outcome, image) if outcome.failed else lines


def where(outcome: Outcome, image: Image) -> list[str]:
    """Return lines about where the guest stood, as explain() has them; none if its registers are not known."""
    cpu = outcome.cpu
    if cpu is None:
        return []
    places = Places(image, cpu)
    rip = cpu.linear_rip
    if outcome.idle and outcome.ending == "deadline":  # registers and code would be those of its idle loop
        return [_idle(image, cpu, places.name)]
    lines = [f"vCPU {outcome.vcpu or 0} at RIP {rip:#x}: {places.name(rip)}"]
    lines.append(f"in {mode(cpu)}")
    lines += [f"  {line}" for line in (*_registers(cpu), *_segments(cpu))]
    return lines + _code(outcome, image, cpu, places.name)


def _idle(image: Image, cpu: CpuState, name: Callable[[int], str]) -> str:
    """Return in what a processor sleeps: RIP is behind a HLT, or behind a hypercall that blocks."""
    rip = cpu.linear_rip
    try:
        halted = LinearMemory(image.ram, cpu).read(rip - 1, 1) == b"\xf4"
    except LinearFault:
        halted = False
    if halted:
        return f"idle: waiting for an interrupt in HLT at {rip - 1:#x}: {name(rip - 1)}"
    return f"idle: waiting for an event in the hypercall before {rip:#x}: {name(rip)}"


class Places:
    """Names for linear addresses: a kernel's symbol or segment, else whatever the plan put there."""

    def __init__(self, image: Image, cpu: CpuState) -> None:
        self._plan = image.plan
        self._ram = image.ram
        self._memory = LinearMemory(image.ram, cpu)
        self._symbols = Symbols(image.plan.kernel)

    def name(self, linear: int) -> str:
        """Return a place such as `start+0x10/0x40` or `segment 2 (paddr 0x100000)+0x10`.

        Where the page tables lead counts first, as it needs no trust in the kernel being where it was linked;
        a kernel that moved itself is found by its virtual addresses.
        """
        gpa = self._memory.translate(linear)
        note = "" if gpa is not None else " (not mapped)"
        if gpa is not None and (segment := self._segment(gpa, physical=True)):
            return self._inside(segment, gpa - segment.paddr)
        if segment := self._segment(linear, physical=False):
            return self._inside(segment, linear - segment.vaddr) + note
        return self._planned(gpa) if gpa is not None else f"outside the kernel{note}"

    def symbol(self, linear: int) -> str:
        """Return the kernel's symbol at or before a linear address, such as `start+0x10`, or "" if there is none."""
        gpa = self._memory.translate(linear)
        segment, vaddr = self._segment(gpa, physical=True) if gpa is not None else None, linear
        if segment and gpa is not None:
            vaddr = segment.vaddr + gpa - segment.paddr
        segment = segment or self._segment(linear, physical=False)
        place = self._symbols.at(vaddr, segment) if segment else None
        return f"{place.name}+{place.offset:#x}" if place else ""

    def _segment(self, address: int, *, physical: bool) -> Segment | None:
        """Return the segment around an address; where some overlap, the last one's bytes are those in memory."""
        for segment in reversed(self._plan.kernel.loads):
            start = segment.paddr if physical else segment.vaddr
            if start <= address < start + segment.memsz:
                return segment
        return None

    def _inside(self, segment: Segment, offset: int) -> str:
        place = self._symbols.at(segment.vaddr + offset, segment)
        return str(place) if place else f"segment {segment.index} (paddr {segment.paddr:#x})+{offset:#x}"

    def _planned(self, gpa: int) -> str:
        around = [r for r in self._plan.ranges if r.start <= gpa < r.end]
        if around:
            return f"{around[0].name}+{gpa - around[0].start:#x}, outside the kernel"
        kind = "RAM outside the kernel" if self._ram.block(gpa, 1) else "no memory"
        return f"{kind} (physical {gpa:#x})"


def mode(cpu: CpuState) -> str:
    """Return the mode a processor runs in, its paging, its privilege, and whether it takes interrupts."""
    if not cpu.cr0 & x86.CR0_PE:
        kind = "real mode"
    elif cpu.efer & x86.EFER_LMA:
        kind = "64-bit mode" if cpu.bits == 64 else f"{cpu.bits}-bit compatibility mode"
    else:
        kind = "virtual-8086 mode" if cpu.rflags & x86.RFLAGS_VM else f"{cpu.bits}-bit protected mode"
    if not cpu.cr0 & x86.CR0_PG:
        paging = "paging off"
    elif cpu.efer & x86.EFER_LMA:
        paging = f"{5 if cpu.cr4 & x86.CR4_LA57 else 4}-level paging"
    else:
        paging = "PAE paging" if cpu.cr4 & x86.CR4_PAE else "32-bit paging"
    return f"{kind}, {paging}, CPL {cpu.cpl}, interrupts {'on' if cpu.rflags & x86.RFLAGS_IF else 'off'}"


def _registers(cpu: CpuState) -> Iterator[str]:
    """Yield rows of registers, as wide as the code's: 32 bits in 16-bit code too, which reaches them by prefix."""
    wide = cpu.bits == 64
    digits, across = (16, 3) if wide else (8, 4)
    names = (*GPR_NAMES, "rip") if wide else (*("e" + name[1:] for name in GPR_NAMES[:8]), "eip")
    values = (*cpu.gprs, cpu.rip) if wide else (*cpu.gprs[:8], cpu.rip)
    cells = [f"{name:<3} {value:0{digits}x}" for name, value in zip(names, values, strict=True)]
    yield from _rows(cells, across)
    yield f"rflags {cpu.rflags:x}{_bits(cpu.rflags, _RFLAGS)}"
    yield f"cr0 {cpu.cr0:x}{_bits(cpu.cr0, _CR0)}   cr2 {cpu.cr2:x}   cr3 {cpu.cr3:x}"
    yield f"cr4 {cpu.cr4:x}{_bits(cpu.cr4, _CR4)}   efer {cpu.efer:x}{_bits(cpu.efer, _EFER)}"


def _segments(cpu: CpuState) -> Iterator[str]:
    """Yield rows of segment registers: selector, base, limit, attributes as Xen packs them (abi/x86.py)."""
    cells: list[str] = []
    for name in ("cs", "ds", "es", "ss", "fs", "gs", "tr", "ldtr"):
        register = getattr(cpu, name)
        hidden = f"base {register.base:x} limit {register.limit:x} ar {register.attributes:x}"
        null = not register.attributes and not register.base
        cells.append(f"{name:<4} {register.selector:04x} " + ("null" if null else hidden))
    cells += [f"{name} base {table.base:x} limit {table.limit:x}"
              for name, table in (("gdtr", cpu.gdtr), ("idtr", cpu.idtr))]  # fmt: skip
    width = max(map(len, cells))
    yield from _rows([cell.ljust(width) for cell in cells], 2)


def _rows(cells: list[str], across: int) -> Iterator[str]:
    for at in range(0, len(cells), across):
        yield "  ".join(cells[at : at + across]).rstrip()


def _bits(value: int, names: Iterable[str]) -> str:
    """Return the names of the bits that are set, in brackets."""
    found = [name for bit, name in enumerate(names) if name and value >> bit & 1]
    return f" [{' '.join(found)}]" if found else ""


def _code(outcome: Outcome, image: Image, cpu: CpuState, name: Callable[[int], str]) -> list[str]:
    """Return the last instructions executed, where the engine could tell, and those at RIP."""
    from pvh.disassembly import Disassembler, ahead, history  # capstone costs 60 ms

    rip = cpu.linear_rip
    try:
        decoder = Disassembler(image.ram, cpu)
    except ImportError:
        blocks = " ".join(f"{address:#x}" for address in outcome.recent[-8:])
        told = [f"last blocks executed, newest last: {blocks}"] if blocks else []
        return [*told, "no disassembly: capstone is not installed (pip install capstone)"]
    lines: list[str] = []
    if outcome.recent:
        lines.append(f"last instructions executed, newest last, as {decoder.bits}-bit code in memory now:")
        lines += [f"  {line}" for line in history(outcome.recent, rip, decoder, name)]
    first, *rest = ahead(decoder, rip)
    return [*lines, f"=> {first}", *(f"   {line}" for line in rest)]
