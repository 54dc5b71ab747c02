"""The monitor's rules against a processor: bits that a rule calls defined do not depend on those that are not.

Each instruction is executed twice by Unicorn, through the library's own Python package, with other values in the bits
that are undefined: what the rule gives as defined must come out equal.
"""

from __future__ import annotations

from typing import Any

import pytest
import unicorn
from hypothesis import given
from hypothesis import strategies as st
from unicorn import x86_const as const

from pvh.conformance.monitor import origins as o
from pvh.conformance.monitor.decode import Decoder
from pvh.conformance.monitor.guard import Guard
from pvh.conformance.monitor.rules import rule
from pvh.conformance.monitor.shadow import DEFINED, ShadowMemory, Value
from pvh.conformance.monitor.tracker import Tracker

CODE = 0x1000
REGISTERS = (const.UC_X86_REG_EAX, const.UC_X86_REG_ECX, const.UC_X86_REG_EDX)
WORDS = st.integers(0, 2**32 - 1)
MASKS = st.one_of(st.just(0), st.just(2**32 - 1), st.sampled_from([1 << bit for bit in range(32)]), WORDS)
# EAX and ECX are operands; flags that the manual leaves undefined are left out (SDM vol. 2).
CF, PF, ZF, SF, OF = 1, 4, 0x40, 0x80, 0x800
ALL = CF | PF | ZF | SF | OF
INSTRUCTIONS = {
    "01c8": ALL, "29c8": ALL, "11c8": ALL, "19c8": ALL, "21c8": ALL, "09c8": ALL, "31c8": ALL, "39c8": ALL, "85c8": ALL,
    "83c07f": ALL, "83e00f": ALL, "83c810": ALL, "a900000100": ALL, "3d02b0ad2b": ALL, "40": ALL, "48": ALL,
    "f7d8": ALL, "f7d0": ALL, "00c8": ALL, "28e0": ALL, "20cc": ALL, "6601c8": ALL, "6639c8": ALL,
    "c1e005": CF | PF | ZF | SF, "c1e805": CF | PF | ZF | SF, "c1f805": CF | PF | ZF | SF, "d3e0": 0, "d3f8": 0,
    "c1c009": 0, "c1c809": 0, "d1d0": 0, "66c1e003": PF | ZF | SF,
    "0fa3c8": CF, "0fabc8": CF, "0fb3c8": CF, "0fbbc8": CF, "0fbae811": CF, "0fc8": 0, "0fb6c1": 0, "0fb6c5": 0,
    "0fbfc1": 0, "0fbec5": 0, "0fafc1": CF | OF, "f7e1": CF | OF, "99": 0, "98": 0, "6698": 0, "8d440801": 0,
    "8d4801": 0, "91": 0, "0fc1c8": ALL, "0fb1ca": ALL, "0fa4c807": 0, "0f44c1": 0, "0f9cc0": 0, "0f92c5": 0,
    "88e9": 0, "6689c8": 0, "9f": 0, "f5": CF, "f8": CF,
}  # fmt: skip


class FakeCpu:
    """A processor whose registers a test sets."""

    bits = 32
    state = None
    paging = False

    def __init__(self, values: list[int], flags: int) -> None:
        self._values = values
        self._flags = flags
        self.bases: dict[str, int] = {}
        self.stale = False

    def gpr(self, index: int) -> int:
        return self._values[index] if index < len(self._values) else 0

    def flags(self) -> int:
        return self._flags


def execute(code: bytes, values: list[int], flags: int) -> tuple[list[int], int]:
    """Run one instruction; return EAX, ECX, EDX and the flags."""
    library: Any = unicorn
    machine = library.Uc(library.UC_ARCH_X86, library.UC_MODE_32)
    machine.mem_map(CODE, 0x1000)
    machine.mem_write(CODE, code)
    for register, value in zip(REGISTERS, values, strict=True):
        machine.reg_write(register, value)
    machine.reg_write(const.UC_X86_REG_EFLAGS, flags | 2)
    machine.emu_start(CODE, CODE + len(code), count=1)
    return [int(machine.reg_read(register)) for register in REGISTERS], machine.reg_read(const.UC_X86_REG_EFLAGS)


def tracked(code: bytes, masks: list[int], values: list[int], flag_mask: int, flags: int) -> Tracker:
    """Apply the rule of one instruction to registers of which these bits are undefined."""
    tracker = Tracker(FakeCpu(values, flags), ShadowMemory(()), Guard((), lambda *_: None), lambda *_: None)  # type: ignore[arg-type]
    tracker.regs = [DEFINED] * 16
    for index, mask in enumerate(masks):
        tracker.regs[index] = (mask, o.GPR + index) if mask else DEFINED
    tracker.status = (flag_mask, o.FLAGS) if flag_mask else DEFINED
    op = Decoder().decode(code, CODE, 32)
    assert op
    tracker.op = op
    rule(op)(tracker, op)
    return tracker


@pytest.mark.parametrize("code", INSTRUCTIONS)
@given(st.lists(WORDS, min_size=3, max_size=3), st.lists(WORDS, min_size=3, max_size=3),
       st.lists(MASKS, min_size=3, max_size=3), st.sampled_from([0, CF, ZF, ALL]))  # fmt: skip
def test_what_is_defined_does_not_depend_on_what_is_not(
    code: str, values: list[int], others: list[int], masks: list[int], flag_mask: int
) -> None:
    raw = bytes.fromhex(code)
    mixed = [value & ~mask | other & mask for value, other, mask in zip(values, others, masks, strict=True)]
    flags = values[0] ^ values[1]
    first, first_flags = execute(raw, values, flags & ALL)
    second, second_flags = execute(raw, mixed, (flags ^ flag_mask) & ALL)
    tracker = tracked(raw, masks, values, flag_mask, flags & ALL)
    for index, (one, two) in enumerate(zip(first, second, strict=True)):
        assert not (one ^ two) & ~tracker.regs[index][0], f"register {index} of {raw.hex()}"
    compared = INSTRUCTIONS[code] & ~tracker.status[0]
    assert not (first_flags ^ second_flags) & compared


@pytest.mark.parametrize(
    ("code", "masks", "left"),
    [
        ("31c0", [2**32 - 1, 0, 0], 0),  # xor %eax, %eax
        ("29c0", [2**32 - 1, 0, 0], 0),  # sub %eax, %eax
        ("83e00f", [2**32 - 1, 0, 0], 0xF),  # and $15, %eax
        ("83c810", [0xFF, 0, 0], 0xEF),  # or $16, %eax
        ("c1e808", [0xFF, 0, 0], 0),  # shr $8, %eax
        ("0fb6c1", [2**32 - 1, 0xFF00, 0], 0),  # movzbl %cl, %eax
        ("b800000000", [2**32 - 1, 0, 0], 0),  # mov $0, %eax
        ("b000", [2**32 - 1, 0, 0], 0xFFFFFF00),  # mov $0, %al
        ("01c8", [0, 0x10, 0], 0xFFFFFFF0),  # add %ecx, %eax: a carry reaches the bits above
    ],
)
def test_a_rule_is_as_exact_as_kernels_need(code: str, masks: list[int], left: int) -> None:
    found: Value = tracked(bytes.fromhex(code), masks, [0, 0, 0], 0, 0).regs[0]
    assert found[0] & 0xFFFFFFFF == left
