"""What the first processor may have in its registers at entry, in three flavours; and RAM with something in it."""

from __future__ import annotations

import random

from pvh.abi import x86
from pvh.build.cpu_state import LOADABLE_MSRS
from pvh.hints import TYPE_CHECKING, Any
from pvh.record import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

LITTERS = 101  # a seed that no other litter has

_M32 = (1 << 32) - 1
_MULTIBOOT_MAGIC = 0x2BADB002
_MMIO = 0xFED0_0800  # where there is neither RAM nor a device
_GENERAL = ("eax", "ecx", "edx", "esp", "ebp", "esi", "edi")
_STATUS = 0x8D5  # CF PF AF ZF SF OF
_DF = 1 << 10
_SYSTEM = 3 << 12 | 1 << 14 | 1 << 16 | 1 << 18 | 1 << 21  # IOPL NT RF AC ID
_EFER = x86.EFER_SCE | x86.EFER_NX  # LME would change what enabling paging means: it keeps its reset value


@dataclass(frozen=True, slots=True)
class Deviation:
    """One thing that the ABI leaves open, otherwise than libxenguest has it.

    clause     id of the clause that allows it
    label      for a person: `with ... it fails`
    registers  as in plan/variation.py
    variation  fields of that record, with values
    options    fields of BootOptions, with values
    """

    clause: str
    label: str
    registers: tuple[tuple[str, int], ...] = ()
    variation: tuple[tuple[str, Any], ...] = ()
    options: tuple[tuple[str, Any], ...] = ()


def processor(flavour: str, seed: int, low_end: int) -> tuple[Deviation, ...]:
    """Return the deviations of a flavour (ones, random, nasty); low_end is where RAM below 4 GiB ends."""
    chooser = random.Random(f"{flavour} {seed}")  # noqa: S311 - no secret

    def number(bits: int = 32) -> int:
        return (1 << bits) - 1 if flavour == "ones" else chooser.getrandbits(bits)

    values = {name: number() for name in _GENERAL}
    if flavour == "nasty":
        values |= {"eax": _MULTIBOOT_MAGIC, "esp": _MMIO, "ebp": low_end - 1}
    made = [
        Deviation(f"entry.{name}", f"{name.upper()} = {value:#x}", (("r" + name[1:], value),))
        for name, value in values.items()
    ]
    made.append(
        Deviation("entry.r8-r15", "R8 to R15 not 0", tuple((f"r{index}", number(64)) for index in range(8, 16)))
    )
    made += _flags(flavour, number)
    made += _system(flavour, number)
    poison = -1 if flavour == "ones" else seed if flavour == "random" else LITTERS + seed
    filled = "ones" if flavour == "ones" else "something"
    made.append(Deviation("memory.poison", f"RAM with {filled} in it", variation=(("poison", poison),)))
    made.append(Deviation("start_info.null", "ones at address 0", variation=(("null", True),)))
    return tuple(made)


def _flags(flavour: str, number: Any) -> Iterator[Deviation]:
    """Yield EFLAGS; random ones are those that `nasty` has clear, as a flag has two values only."""
    status = _STATUS if flavour != "random" else number() & _STATUS
    yield Deviation("eflags.df", "EFLAGS.DF set", (("rflags", _DF),))
    yield Deviation("eflags.status", "CF, PF, AF, ZF, SF, OF not clear", (("rflags", status),))
    yield Deviation("eflags.system", "IOPL, NT, RF, AC, ID set", (("rflags", _SYSTEM),))


def _system(flavour: str, number: Any) -> Iterator[Deviation]:
    """Yield segment, table, control and debug registers."""
    nasty = flavour == "nasty"
    # What multiboot loaders and QEMU leave behind is worth more than chance. RPL stays 0, as CPL is.
    selectors = (0x10, 0x18, 0x18, 0x18) if nasty else tuple(number(16) & ~7 for _ in range(4))
    named = tuple(zip(("cs.selector", "ds.selector", "es.selector", "ss.selector"), selectors, strict=True))
    yield Deviation("segments.selectors", "selectors of CS, DS, ES, SS not 0", named)
    unusable = (("fs.selector", 0xFFF8), ("gs.selector", 0xFFF8))
    usable = tuple(
        (f"{name}.{part}", value)
        for name in ("fs", "gs")
        for part, value in (("selector", number(16) & ~7), ("base", number()), ("limit", 0xFFFF), ("attributes", 0x93))
    )
    yield Deviation("segments.fs-gs", "junk in FS and GS", unusable if nasty else usable)
    yield Deviation("tr", "a selector in TR", (("tr.selector", 0x8 if nasty else number(16) & ~7),))
    local = (("selector", number(16) & ~7), ("base", number()), ("limit", 0xFFFF), ("attributes", 0x82))
    yield Deviation("ldtr", "junk in LDTR", tuple((f"ldtr.{part}", value) for part, value in local))
    for clause, name in (("gdt", "gdtr"), ("idt", "idtr")):
        limit = 0 if nasty else 0xFFFF
        yield Deviation(clause, f"junk in {name.upper()}", ((f"{name}.base", number()), (f"{name}.limit", limit)))
    yield Deviation("cr2", "CR2 not 0", (("cr2", number()),))
    yield Deviation("cr3", "CR3 not 0", (("cr3", number() & ~0xFFF),))
    yield Deviation("efer", "EFER.SCE and NXE set", (("efer", _EFER),))
    # Low addresses are canonical; the selectors of STAR and SYSENTER_CS are looked at by who uses them.
    msrs = tuple((f"msr.{index:x}", number(32 if index == x86.MSR_SYSCALL_MASK else 47)) for index in LOADABLE_MSRS)
    yield Deviation("msr", "MSRs of SYSCALL, SYSENTER and SWAPGS not 0", msrs)
    # What DR0 to DR3 name does not matter: DR7 arms none.
    places = tuple((f"dr{index}", number()) for index in range(4))
    status = (("dr6", 0xFFFF0FF0 | number() & 0xE00F), ("dr7", 0x700))
    yield Deviation("dr", "addresses in DR0 to DR3, bits in DR6 and DR7", (*places, *status))
