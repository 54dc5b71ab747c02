"""What x87 and SSE instructions use of the state that the ABI leaves unspecified."""

from __future__ import annotations

from pvh.abi import x86
from pvh.conformance.monitor import origins as o
from pvh.conformance.monitor.alu import RULES as ALU
from pvh.conformance.monitor.alu import general, width
from pvh.conformance.monitor.decode import Mem, Op, Other, Reg
from pvh.conformance.monitor.shadow import DEFINED
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.conformance.monitor.alu import Rule
    from pvh.conformance.monitor.tracker import Tracker

_CR4_OSFXSR = 1 << 9


def x87(t: Tracker, op: Op) -> None:
    """x87 instructions: FNINIT and what loads all the state come first; FNSTCW and its like only save."""
    _store_fpu(t, op)
    if op.name in ("fninit", "finit", "fldenv", "frstor", "fnsave", "fsave"):
        t.done.add("fpu")
    elif op.name == "fldcw":
        control = op.operands[0]
        value = t.read(op, control)
        if value[0] and value[1] != o.FPU:
            t.use(op, value, "is loaded into the x87 control word")
        elif (
            not value[0] and t.concrete(op, control) & 0x3F != 0x3F and t.cpu.state and not t.cpu.state.cr0 & x86.CR0_NE
        ):
            t.violate(op, "cr0", "x87 exceptions are unmasked while CR0.NE is clear: they would not arrive as #MF")
    elif "fpu" not in t.done and op.name not in ("fnstcw", "fnstsw", "fnstenv", "fnclex", "fxsave", "fwait", "wait"):
        t.use(op, (1, o.FPU), "is used before FNINIT")


def _store_fpu(t: Tracker, op: Op) -> None:
    value = DEFINED if "fpu" in t.done else (1, o.FPU)
    for operand in op.operands:
        if op.name.startswith(("fnst", "fst", "fist", "fnsave", "fsave", "fbst")) and isinstance(operand, Mem | Reg):
            t.write(op, operand, ((1 << width(operand)) - 1, value[1]) if value[0] else DEFINED)


def _extended(t: Tracker, op: Op) -> None:
    """FXSAVE, XSAVE and their counterparts."""
    if "rstor" in op.name:
        t.done |= {"fpu", "mxcsr"}
    elif isinstance(op.operands[0], Mem):
        mem = op.operands[0]
        t.fill(op, t.linear(op, mem), 512)


def _mxcsr(t: Tracker, op: Op) -> None:
    value = t.read(op, op.operands[0])
    if op.name.endswith("ldmxcsr"):
        if value[0] and value[1] != o.FPU:
            t.use(op, value, "is loaded into MXCSR")
        t.done.add("mxcsr")
    else:
        t.write(op, op.operands[0], DEFINED if "mxcsr" in t.done else (0xFFFFFFFF, o.FPU))


def vector(t: Tracker, op: Op) -> None:
    """SSE: without OSFXSR it faults; a register that was not written is undefined; floats go by MXCSR."""
    state = t.cpu.state
    uses = any(isinstance(operand, Other) and operand.name[:2] in ("xm", "ym") for operand in op.operands)
    if not uses:
        (ALU.get(op.name) or general)(t, op)
        return
    if state and not state.cr4 & _CR4_OSFXSR:
        t.violate(op, "cr4", "an SSE instruction is executed while CR4.OSFXSR is clear: it faults")
    for operand in op.operands:
        if isinstance(operand, Other) and operand.name not in t.others:
            t.others[operand.name] = (1 << operand.width) - 1, o.FPU
    if "mxcsr" not in t.done and _calculates(op.name):
        t.use(op, (1, o.FPU), "(MXCSR) decides how a float is rounded")
    (ALU.get(op.name) or general)(t, op)


def _calculates(name: str) -> bool:
    verbs = ("add", "sub", "mul", "div", "sqrt", "cvt", "min", "max", "comi", "ucomi", "cmp")
    return name.startswith(verbs) and name.endswith(("ss", "sd", "ps", "pd", "si"))


_SAVING = ("fxsave", "fxsave64", "xsave", "xsave64", "fxrstor", "fxrstor64", "xrstor", "xrstor64")

RULES: dict[str, Rule] = {**dict.fromkeys(_SAVING, _extended), "ldmxcsr": _mxcsr, "stmxcsr": _mxcsr}
