"""What the ABI says to what was seen of a VMM, clause by clause (conformance/clauses.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

from pvh.conformance.clauses import CLAUSES
from pvh.conformance.probe.facts import Observation, Range, Value
from pvh.hints import Literal
from pvh.record import dataclass

Answer = Literal["upheld", "violated", "open", "not seen"]
_Facts = Mapping[str, Value]

_MAGIC = 0x336EC578
_MULTIBOOT = 0x2BADB002, 0x36D76289
_BEFORE_TR = 2  # parts of the probe that end before it tries TR
_UNJUDGED = frozenset({"file"})  # parts that are about kernels only


@dataclass(frozen=True, slots=True)
class Verdict:
    """One clause, and what a VMM makes of it.

    answer    upheld; violated; open: the ABI promises nothing, and this is what is there; not seen
    evidence  what was seen, or why nothing was
    tempting  the value is one that a kernel may come to rely on
    """

    clause: str
    answer: Answer
    evidence: str
    tempting: bool = False


def judge(seen: Observation) -> tuple[Verdict, ...]:
    """Return a verdict for every clause about the hand-over, in the order of CLAUSES."""
    return tuple(_judge(clause.id, seen) for clause in CLAUSES if clause.part not in _UNJUDGED)


def _judge(clause: str, seen: Observation) -> Verdict:
    rule = _RULES.get(clause)
    if rule is None:
        return Verdict(clause, "not seen", "")
    try:
        return rule(clause, seen)
    except KeyError as error:
        return Verdict(clause, "not seen", f"no {error.args[0]} in what was recorded")


def _number(facts: _Facts, name: str) -> int:
    value = facts[name]
    assert isinstance(value, int)
    return value


def _promise(clause: str, *, holds: bool, evidence: str) -> Verdict:
    return Verdict(clause, "upheld" if holds else "violated", evidence)


def _eip(clause: str, seen: Observation) -> Verdict:
    if seen.facts.get("stray_entry"):
        return Verdict(clause, "violated", "entered at the ELF header's e_entry")
    said = "stopped at PHYS32_ENTRY, and not at e_entry before" if seen.of_registers else "entered at PHYS32_ENTRY"
    return _promise(clause, holds=_number(seen.facts, "eip.offset") == 0, evidence=said)


def _mode(clause: str, seen: Observation) -> Verdict:
    cr0 = _number(seen.facts, "cr0")
    width = seen.facts["cs.d"] if seen.of_registers else seen.facts.get("cs.d", 1)  # the probe is 32-bit code
    said = f"CR0.PE {cr0 & 1}, CR0.PG {cr0 >> 31}, code of {32 if width == 1 else 16} bits"
    return _promise(clause, holds=cr0 & 1 == 1 and cr0 >> 31 == 0 and width == 1, evidence=said)


def _ebx(clause: str, seen: Observation) -> Verdict:
    magic = _number(seen.facts, "start_info.magic")
    said = (
        f"EBX = {_number(seen.facts, 'ebx'):#x}, where {'start_info is' if magic == _MAGIC else f'{magic:#x} stands'}"
    )
    return _promise(clause, holds=magic == _MAGIC, evidence=said)


def _flags(clause: str, seen: Observation) -> Verdict:
    value = _number(seen.facts, "eflags")
    set_ = [name for name, bit in (("VM", 17), ("IF", 9), ("TF", 8)) if value >> bit & 1]
    return _promise(clause, holds=not set_, evidence=f"EFLAGS = {value:#x}" + (f": {', '.join(set_)} set" * bool(set_)))


def _cr0(clause: str, seen: Observation) -> Verdict:
    value = _number(seen.facts, "cr0")
    return _promise(clause, holds=value & ~0x10 == 1, evidence=f"CR0 = {value:#x}")  # ET cannot be cleared


def _cr4(clause: str, seen: Observation) -> Verdict:
    value = _number(seen.facts, "cr4")
    return _promise(clause, holds=value == 0, evidence=f"CR4 = {value:#x}")


def _flat(clause: str, seen: Observation) -> Verdict:
    facts = seen.facts
    names = (
        "cs.d",
        "ss.b",
        "cs.base_0",
        "es.base_0",
        "ss.base_0",
        "cs.limit_4g",
        "ds.limit_4g",
        "es.limit_4g",
        "ss.limit_4g",
    )
    wrong = [name for name in names if _number(facts, name) != 1]
    source = "as the stub's monitor shows them" if seen.of_registers else "each tried by an access through it"
    said = "not so: " + ", ".join(wrong) if wrong else source
    return _promise(clause, holds=not wrong, evidence=said)


def _tr(clause: str, seen: Observation) -> Verdict:
    facts = seen.facts
    if "tr.limit" in facts:
        base, limit, kind = (_number(facts, f"tr.{name}") for name in ("base", "limit", "type"))
        said = f"base {base:#x}, limit {limit:#x}, type {kind:#x}"
        if limit == 0xFFFF:
            said += ": TR holds what a reset leaves, and was never loaded"
        return _promise(clause, holds=(base, limit, kind) == (0, 0x67, 0xB), evidence=said)
    if "tr.base_0" not in facts and facts.get("parts") == _BEFORE_TR and "quick" not in str(facts.get("cmdline")):
        said = "an interrupt from CPL 3 did not come back: TR is no TSS at 0, or the VMM cannot do that"
        return Verdict(clause, "not seen", said)
    based, inside, outside = (_number(facts, f"tr.{name}") for name in ("base_0", "io_inside", "io_outside"))
    wrong = [what for what, so in (
        ("its TSS is not at 0", not based),
        ("its limit is below 0x67", not inside),
        ("its limit is above 0x67", bool(outside)),
    ) if so]  # fmt: skip
    return _promise(
        clause, holds=not wrong, evidence="; ".join(wrong) or "an interrupt from CPL 3 used its TSS at 0, limit 0x67"
    )


def _mtrr(clause: str, seen: Observation) -> Verdict:
    value = _number(seen.facts, "msr.mtrr_def_type")
    said = f"IA32_MTRR_DEF_TYPE = {value:#x}"
    if not value & 0x800:
        said += ": MTRRs are off"
    return _promise(clause, holds=value & 0x8FF == 0x806, evidence=said)


def _apic(clause: str, seen: Observation) -> Verdict:
    value = _number(seen.facts, "msr.apic_base")
    holds = value & 0xC00 == 0x800 and value & ~0xFFF == 0xFEE00000
    return _promise(clause, holds=holds, evidence=f"IA32_APIC_BASE = {value:#x}")


def _loaded(clause: str, seen: Observation) -> Verdict:
    holds = _number(seen.facts, "code.intact") == 1
    what = "the beginning of each segment" if seen.of_registers else "the probe's code"
    said = f"{what} is {'as in' if holds else 'not that of'} its file"
    if seen.facts.get("code.replaced"):
        said += f": pvh replaced {seen.facts['code.replaced']} hypercalls, which this KVM does not pass on"
    return _promise(clause, holds=holds, evidence=said)


def _bss(clause: str, seen: Observation) -> Verdict:
    count = _number(seen.facts, "bss.nonzero")
    whose = "behind the segments' file bytes" if seen.of_registers else "of the probe's .bss"
    return _promise(clause, holds=count == 0, evidence=f"{count} bytes {whose} were not 0")


def _magic(clause: str, seen: Observation) -> Verdict:
    magic = _number(seen.facts, "start_info.magic")
    return _promise(clause, holds=magic == _MAGIC, evidence=f"magic {magic:#x}")


def _below(clause: str, seen: Observation) -> Verdict:
    _known_start_info(seen.facts)
    names = ("modlist_paddr", "cmdline_paddr", "rsdp_paddr", "memmap_paddr")
    high = [name for name in names if int(seen.facts.get(f"start_info.{name}", 0)) >> 32]
    return _promise(clause, holds=not high, evidence="above 4 GiB: " + ", ".join(high) if high else "all below 4 GiB")


def _known_start_info(facts: _Facts) -> None:
    if _number(facts, "start_info.magic") != _MAGIC:
        raise KeyError("start_info")


def _open(clause: str, said: str, *, tempting: bool = False) -> Verdict:
    return Verdict(clause, "open", said, tempting)


def _register(name: str) -> Callable[[str, Observation], Verdict]:
    def rule(clause: str, seen: Observation) -> Verdict:
        value = _number(seen.facts, name)
        magic = value in _MULTIBOOT
        said = f"{name.upper()} = {value:#x}" + (
            ", Multiboot's magic number: a kernel may take it for a promise" * magic
        )
        return _open(clause, said, tempting=magic)

    return rule


def _esp(clause: str, seen: Observation) -> Verdict:
    value = _number(seen.facts, "esp")
    live = value >= 4 and any(_holds(entry, value - 4) for entry in seen.memmap)
    said = f"ESP = {value:#x}"
    if live:
        said += ", in RAM: a live stack, which a kernel can use without noticing that it has none of its own"
    return _open(clause, said, tempting=live)


def _holds(entry: Range, address: int) -> bool:
    return entry.type == 1 and entry.address <= address < entry.address + entry.size


def _tables(name: str, what: str) -> Callable[[str, Observation], Verdict]:
    def rule(clause: str, seen: Observation) -> Verdict:
        base, limit = (_number(seen.facts, f"{name}.{part}") for part in ("base", "limit"))
        usable = name == "gdtr" and limit >= 15 and any(bytes.fromhex(str(seen.facts.get("gdt", ""))))
        said = f"{name.upper()} base {base:#x}, limit {limit:#x}"
        return _open(clause, said + (f": {what}" * usable), tempting=usable)

    return rule


def _values(*names: str) -> Callable[[str, Observation], Verdict]:
    def rule(clause: str, seen: Observation) -> Verdict:
        return _open(clause, ", ".join(f"{name.upper()} = {_number(seen.facts, name):#x}" for name in names))

    return rule


def _selectors(clause: str, seen: Observation) -> Verdict:
    values = {name: _number(seen.facts, name) for name in ("cs", "ds", "es", "ss")}
    return _open(clause, ", ".join(f"{name.upper()} = {value:#x}" for name, value in values.items()))


def _flag_bits(*bits: tuple[str, int]) -> Callable[[str, Observation], Verdict]:
    def rule(clause: str, seen: Observation) -> Verdict:
        value = _number(seen.facts, "eflags")
        set_ = [name for name, bit in bits if value >> bit & 1]
        return _open(clause, (", ".join(set_) + " set") if set_ else "clear")

    return rule


def _efer(clause: str, seen: Observation) -> Verdict:
    return _open(clause, f"EFER = {_number(seen.facts, 'msr.efer' if 'msr.efer' in seen.facts else 'efer'):#x}")


def _info(say: Callable[[_Facts], str]) -> Callable[[str, Observation], Verdict]:
    def rule(clause: str, seen: Observation) -> Verdict:
        _known_start_info(seen.facts)
        return _open(clause, say(seen.facts))

    return rule


def _memmap(say: Callable[[tuple[Range, ...]], str]) -> Callable[[str, Observation], Verdict]:
    def rule(clause: str, seen: Observation) -> Verdict:
        if not seen.memmap:
            raise KeyError("memmap")
        return _open(clause, say(seen.memmap))

    return rule


def _order(entries: tuple[Range, ...]) -> str:
    starts = [entry.address for entry in entries]
    return "sorted" if starts == sorted(starts) else "not sorted"


def _gaps(entries: tuple[Range, ...]) -> str:
    ordered = sorted((entry for entry in entries if entry.size), key=lambda entry: entry.address)
    gaps = sum(a.address + a.size < b.address for a, b in pairwise(ordered))
    overlaps = sum(a.address + a.size > b.address for a, b in pairwise(ordered))
    return f"{gaps} holes" + (f", {overlaps} entries that overlap" * bool(overlaps))


def _amount(entries: tuple[Range, ...]) -> str:
    ram = [entry for entry in entries if entry.type == 1]
    return f"{sum(entry.size for entry in ram) >> 10} KiB of RAM in {len(ram)} entries"


def _rsdp(clause: str, seen: Observation) -> Verdict:
    paddr = _number(seen.facts, "start_info.rsdp_paddr")
    if not paddr:
        return _open(clause, "rsdp_paddr is 0")
    if _number(seen.facts, "rsdp.found") != 1:
        return Verdict(clause, "violated", f"no RSDP at rsdp_paddr, {paddr:#x}")
    return _promise(clause, holds=_number(seen.facts, "rsdp.sums") == 1, evidence=f"RSDP at {paddr:#x}" + (
        "" if seen.facts["rsdp.sums"] else ", whose checksum is wrong"))  # fmt: skip


_RULES: dict[str, Callable[[str, Observation], Verdict]] = {
    "entry.eip": _eip,
    "entry.mode": _mode,
    "entry.ebx": _ebx,
    **{f"entry.{name}": _register(name) for name in ("eax", "ecx", "edx", "esi", "edi", "ebp")},
    "entry.esp": _esp,
    "eflags": _flags,
    "eflags.df": _flag_bits(("DF", 10)),
    "eflags.status": _flag_bits(("CF", 0), ("PF", 2), ("AF", 4), ("ZF", 6), ("SF", 7), ("OF", 11)),
    "eflags.system": _flag_bits(("IOPL", 12), ("IOPL", 13), ("NT", 14), ("RF", 16), ("AC", 18), ("ID", 21)),
    "cr0": _cr0,
    "cr2": _values("cr2"),
    "cr3": _values("cr3"),
    "cr4": _cr4,
    "efer": _efer,
    "segments.flat": _flat,
    "segments.selectors": _selectors,
    "segments.fs-gs": _values("fs", "gs"),
    "tr": _tr,
    "ldtr": _values("ldtr"),
    "gdt": _tables("gdtr", "the loader's own table is still there, so that loading a segment register works"),
    "idt": _tables("idtr", ""),
    "dr": _values("dr6", "dr7"),
    "mtrr": _mtrr,
    "memory.loaded": _loaded,
    "memory.bss-zero": _bss,
    "memory.amount": _memmap(_amount),
    "start_info.magic": _magic,
    "start_info.below-4g": _below,
    "version.future": _info(lambda facts: f"version {facts['start_info.version']}"),
    "memmap.empty": _info(lambda facts: f"{facts['start_info.memmap_entries']} entries"),
    "memmap.order": _memmap(_order),
    "memmap.holes": _memmap(_gaps),
    "memmap.zero-size": _memmap(lambda entries: f"{sum(entry.size == 0 for entry in entries)} entries of size 0"),
    "memmap.types": _memmap(lambda entries: "types " + ", ".join(map(str, sorted({entry.type for entry in entries})))),
    "cmdline.absent": _info(lambda facts: f"cmdline_paddr = {facts['start_info.cmdline_paddr']:#x}"),
    "modules.absent": _info(lambda facts: f"nr_modules = {facts['start_info.nr_modules']}, modlist_paddr = "
                            f"{facts['start_info.modlist_paddr']:#x}"),
    "modules.cmdline-absent": _info(lambda facts: f"the first module's is {facts['module0.cmdline_paddr']:#x}"),
    "rsdp.absent": _info(lambda facts: f"rsdp_paddr = {facts['start_info.rsdp_paddr']:#x}"),
    "rsdp.placement": _rsdp,
    "apic": _apic,
}  # fmt: skip
