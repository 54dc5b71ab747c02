"""Read what xen-hvmctx prints: the records Xen would save of a domain, field by field, in hex.

A vCPU that is down has no CPU record; every vCPU has its local APIC's and its MTRRs'.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pvh.abi import x86
from pvh.build.cpu_state import GPR_NAMES, CpuState, SegmentRegister, TableRegister

# HVM_SAVE_TYPE codes (xen/include/public/arch-x86/hvm/save.h).
_CPU, _LAPIC, _LAPIC_REGS, _MTRR = 2, 5, 6, 14
_NUMBER = r"(?:0x)?[0-9a-f]+"
_ENTRY = re.compile(r"^Entry \d+: type (\d+) instance (\d+), length \d+$", re.MULTILINE)
_NUMBERS = ("rip", "rflags", "cr0", "cr2", "cr3", "cr4", "dr0", "dr1", "dr2", "dr3", "dr6", "dr7", "efer")
MSRS = {
    "star": x86.MSR_STAR, "lstar": x86.MSR_LSTAR, "cstar": x86.MSR_CSTAR, "sfmask": x86.MSR_SYSCALL_MASK,
    "shadow gs": x86.MSR_KERNEL_GS_BASE, "sysenter cs": x86.MSR_SYSENTER_CS, "esp": x86.MSR_SYSENTER_ESP,
    "eip": x86.MSR_SYSENTER_EIP,
}  # fmt: skip
_SEGMENTS = ("cs", "ds", "es", "ss", "fs", "gs", "tr", "ldtr")


@dataclass(frozen=True, slots=True)
class Apic:
    """One local APIC: MSR IA32_APIC_BASE, and each register by its offset into the page."""

    base_msr: int
    registers: dict[int, int]


@dataclass(frozen=True, slots=True)
class Context:
    """A domain's processors, each by vCPU number."""

    cpus: dict[int, CpuState]
    apics: dict[int, Apic]


def read(text: str) -> Context:
    """Read the records of one dump."""
    _, *pieces = _ENTRY.split(text)
    records = {(int(k), int(v)): body for k, v, body in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True)}
    cpus = {v: _cpu(body, records[_MTRR, v]) for (kind, v), body in records.items() if kind == _CPU}
    apics = {v: _apic(body, records[_LAPIC_REGS, v]) for (kind, v), body in records.items() if kind == _LAPIC}
    return Context(cpus, apics)


def _cpu(text: str, mtrr: str) -> CpuState:
    def number(name: str) -> int:
        return _hex(rf"\b{name}\s+({_NUMBER})", text)

    values: dict[str, Any] = {name: number(name) for name in _NUMBERS}
    values |= {name: _segment(name, text) for name in _SEGMENTS}
    values |= {name: _table(name, text) for name in ("gdtr", "idtr")}
    msrs = {msr: number(name) for name, msr in MSRS.items()}
    values["msrs"] = tuple(
        (msr, value) for msr, value in msrs.items() if value
    )  # as CpuState has them: all others are 0
    values["mtrr_def_type"] = _hex(rf"default ({_NUMBER})", mtrr)
    return CpuState(gprs=tuple(number(name) for name in GPR_NAMES), **values)


def _hex(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, f"no {pattern} in {text}"
    return int(found[1], 16)


def _segment(name: str, text: str) -> SegmentRegister:
    """A row `cs 0000 (base + limit / attributes)`."""
    row = re.search(rf"\b{name}\s+({_NUMBER}) \(\s*({_NUMBER}) \+\s*({_NUMBER}) /\s*({_NUMBER})\)", text)
    assert row, f"no {name} in {text}"
    return SegmentRegister(*(int(field, 16) for field in row.groups()))


def _table(name: str, text: str) -> TableRegister:
    row = re.search(rf"\b{name}\s+\(\s*({_NUMBER}) \+\s*({_NUMBER})\)", text)
    assert row, f"no {name} in {text}"
    return TableRegister(*(int(field, 16) for field in row.groups()))


def _apic(text: str, registers: str) -> Apic:
    pairs = re.findall(rf"({_NUMBER}): ({_NUMBER})", registers)
    return Apic(_hex(rf"base_msr ({_NUMBER})", text), {int(offset, 16): int(value, 16) for offset, value in pairs})
