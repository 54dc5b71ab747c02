"""What system instructions use of what is unspecified: segments, tables, control and debug registers, MSRs, ports."""

from __future__ import annotations

from pvh.abi import x86
from pvh.conformance.monitor import origins as o
from pvh.conformance.monitor.alu import RULES as ALU
from pvh.conformance.monitor.alu import width
from pvh.conformance.monitor.decode import Imm, Mem, Op, Operand, Other, register
from pvh.conformance.monitor.flow import RULES as FLOW
from pvh.conformance.monitor.flow import segment, word
from pvh.conformance.monitor.shadow import DEFINED, Value
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.conformance.monitor.alu import Rule
    from pvh.conformance.monitor.tracker import Tracker

_SEGMENTS = ("cs", "ds", "es", "ss", "fs", "gs")
# Without a value at entry that a kernel may rely on: SYSENTER's, FS, GS and kernel GS base, SYSCALL's, TSC_AUX.
_MSRS = frozenset((0x174, 0x175, 0x176, *range(0xC0000081, 0xC0000085), *range(0xC0000100, 0xC0000104)))
_FS_BASE, _GS_BASE, _KERNEL_GS_BASE, _LSTAR = 0xC0000100, 0xC0000101, 0xC0000102, 0xC0000082
_SUBLEAVES = frozenset((4, 7, 0xB, 0xD, 0xF, 0x10, 0x12, 0x14, 0x17, 0x18, 0x1F, 0x8000001D, 0x40000003))
# PIC, PIT, keyboard controller, RTC, PCI: what a PVH guest does not have.
_ABSENT = frozenset((0x20, 0x21, 0xA0, 0xA1, *range(0x40, 0x44), 0x60, 0x64, 0x70, 0x71, *range(0xCF8, 0xD00)))
_POLLED = 1000  # times from one instruction, before it counts as waiting for an answer

_IMAGE_SELECTOR = "is loaded into {}"


def load_segment(t: Tracker, op: Op, name: str, value: Value, selector: int) -> None:
    """Take a selector into a segment register: from a table, unless it is null."""
    t.cpu.stale = True
    if value[0] & 0xFFFC:
        if "gdt" not in t.done and value[1] in (o.SELECTOR, o.FS_GS):
            t.violate(op, "gdt", f"{name.upper()} is loaded before LGDT, by a selector without a defined value")
        else:
            t.use(op, value, f"is loaded into {name.upper()}")
    elif selector & 0xFFFC or name in ("cs", "ss"):
        _from_table(t, op, selector, f"{name.upper()} is loaded")
    t.done.add(name)


def _from_table(t: Tracker, op: Op, selector: int, what: str) -> None:
    if selector & 4 and "ldt" not in t.done:
        t.violate(op, "ldtr", f"{what} from the LDT before LLDT")
    elif not selector & 4 and "gdt" not in t.done:
        t.violate(op, "gdt", f"{what} from the GDT before LGDT")


def _mov(t: Tracker, op: Op) -> None:
    """MOV of every kind: special registers here, the rest in alu.py."""
    target, source = op.operands[0], op.operands[1]
    if isinstance(target, Other) and target.name in _SEGMENTS:
        load_segment(t, op, target.name, t.read(op, source), t.concrete(op, source) & 0xFFFF)
    elif isinstance(target, Other) and target.name[:2] in ("cr", "dr"):
        _write_special(t, op, target.name, source)
    elif isinstance(source, Other) and source.name in _SEGMENTS:
        t.write(op, target, segment(t, source))
    elif isinstance(source, Other) and source.name[:2] in ("cr", "dr"):
        t.write(op, target, _special(t, source.name, width(target)))
    else:
        ALU["mov"](t, op)


def _special(t: Tracker, name: str, bits: int) -> Value:
    """Return the value of a control or debug register."""
    origin = {"cr2": o.CR2, "cr3": o.CR3}.get(name, o.DR if name.startswith("dr") else 0)
    return ((1 << bits) - 1, origin) if origin and name not in t.done else DEFINED


def _write_special(t: Tracker, op: Op, name: str, source: Operand) -> None:
    value = t.read(op, source)
    if value[0] and not (name.startswith("dr") and value[1] == o.DR):
        t.use(op, value, f"is loaded into {name.upper()}")
    if name == "cr0":
        _write_cr0(t, op, t.concrete(op, source))
    t.done.add(name)
    t.cpu.stale = True


def _write_cr0(t: Tracker, op: Op, value: int) -> None:
    """Paging begins with the tables of CR3, and in the mode that EFER.LME says."""
    if value & x86.CR0_PG and not t.cpu.paging:
        if "cr3" not in t.done:
            t.violate(op, "cr3", "paging is enabled before CR3 has been loaded")
        if x86.MSR_EFER not in t.done:
            t.violate(op, "efer", "paging is enabled before EFER, whose LME decides its format, has been written")


def _lmsw(t: Tracker, op: Op) -> None:
    value = t.read(op, op.operands[0])
    if value[0] & 0xF:
        t.use(op, value, "is loaded into CR0")
    t.cpu.stale = True


def _pop(t: Tracker, op: Op) -> None:
    operand = op.operands[0]
    if isinstance(operand, Other) and operand.name in _SEGMENTS:
        raw = t.cpu.memory(t.stack(op, 0), 2)
        load_segment(t, op, operand.name, t.pop(op, 2), int.from_bytes(raw, "little"))
    else:
        FLOW["pop"](t, op)


def _load_far(t: Tracker, op: Op) -> None:
    """LDS, LES, LFS, LGS, LSS."""
    source = op.operands[1]
    if isinstance(source, Mem):
        at = t.linear(op, source)
        name = op.name[1:]
        raw = t.cpu.memory(at + source.size - 2, 2)
        load_segment(t, op, name, t.load(at + source.size - 2, 2), int.from_bytes(raw, "little"))
        t.write(op, op.operands[0], t.load(at, source.size - 2))


def _far(t: Tracker, op: Op) -> None:
    """LJMP, LCALL."""
    first = op.operands[0]
    selector, value = 0, DEFINED
    if isinstance(first, Imm):
        selector = first.value & 0xFFFF
    elif isinstance(first, Mem):
        at = t.linear(op, first)
        value = t.load(at, first.size)
        selector = int.from_bytes(t.cpu.memory(at + first.size - 2, 2), "little")
    if op.name == "lcall":
        t.push(op, 2 * word(op), DEFINED)
    if value[0]:
        t.use(op, value, "is where control goes")
    load_segment(t, op, "cs", DEFINED, selector)


def _jump(t: Tracker, op: Op) -> None:
    """JMP and CALL through six or ten bytes of memory are far."""
    first = op.operands[0]
    if len(op.operands) == 2 or (isinstance(first, Mem) and first.size in (6, 10)):
        _far(t, op)
    else:
        FLOW[op.name](t, op)


def _far_return(t: Tracker, op: Op) -> None:
    """RETF, IRET."""
    size = 8 if op.name.endswith("q") else 2 if op.code[:1] == b"\x66" else 4
    if op.name.startswith("iret"):
        if t.system & o.NT:
            t.use(op, (o.NT, o.FLAGS), "decides whether IRET returns or switches tasks")
        t.set_image(op, t.pop(op, size, 2 * size))
    if (value := t.pop(op, size))[0]:
        t.use(op, value, "is where control goes")
    raw = t.cpu.memory(t.stack(op, 0) + size, 2)
    load_segment(t, op, "cs", t.pop(op, 2, size), int.from_bytes(raw, "little"))


def _table(t: Tracker, op: Op) -> None:
    """LGDT, LIDT."""
    value = t.read(op, op.operands[0])
    if value[0]:
        t.use(op, value, f"is loaded into {op.name[1:].upper()}R")
    t.done.add(op.name[1:])


def _store_table(t: Tracker, op: Op) -> None:
    """SGDT, SIDT."""
    table = op.name[1:]
    size = width(op.operands[0]) // 8
    origin = o.GDT if table == "gdt" else o.IDT
    t.write(op, op.operands[0], DEFINED if table in t.done else ((1 << 8 * size) - 1, origin))


def _task(t: Tracker, op: Op) -> None:
    """LTR, LLDT."""
    value = t.read(op, op.operands[0])
    selector = t.concrete(op, op.operands[0]) & 0xFFFF
    if value[0] & 0xFFFC:
        t.use(op, value, f"is loaded into {op.name[1:].upper()}")
    elif selector & 0xFFFC or op.name == "ltr":
        _from_table(t, op, selector & ~4, f"{op.name[1:].upper()} is loaded")
    t.done.add({"ltr": "tr", "lldt": "ldt"}[op.name])


def _store_task(t: Tracker, op: Op) -> None:
    """STR, SLDT."""
    name, origin = ("tr", o.TR) if op.name == "str" else ("ldt", o.LDTR)
    t.write(op, op.operands[0], DEFINED if name in t.done else (0xFFFF, origin))


def _interrupt(t: Tracker, op: Op) -> None:
    """INT, INT3, INTO, STI."""
    if "idt" not in t.done:
        what = "interrupts are enabled" if op.name == "sti" else "an interrupt is raised"
        t.violate(op, "idt", f"{what} before LIDT")
    if op.name != "sti" and "tr" not in t.done and t.cpu.state and t.cpu.state.cpl:
        t.violate(op, "tr", "an interrupt takes its stack from the TSS before LTR")
    t.cpu.stale = True


def _rdmsr(t: Tracker, op: Op) -> None:
    index = _msr(t, op)
    value = DEFINED
    if index not in t.done:
        origin = o.EFER if index == x86.MSR_EFER else o.MSR if index in _MSRS else 0
        value = (0xFFFFFFFF, origin) if origin else DEFINED
    t.set_register(register("eax"), value)
    t.set_register(register("edx"), value)


def _wrmsr(t: Tracker, op: Op) -> None:
    index = _msr(t, op)
    for name in ("eax", "edx"):
        value = t.register(register(name))
        if value[0] and value[1] not in (o.EFER, o.MSR):
            t.use(op, value, f"is written to MSR {index:#x}")
    t.done.add(index)
    t.done |= {_FS_BASE: {"fs"}, _GS_BASE: {"gs"}}.get(index, set())
    t.cpu.stale = True


def _msr(t: Tracker, op: Op) -> int:
    value = t.register(register("ecx"))
    if value[0]:
        t.use(op, value, "is the number of an MSR")
    return t.cpu.gpr(1) & 0xFFFFFFFF


def _swapgs(t: Tracker, _op: Op) -> None:
    if _KERNEL_GS_BASE not in t.done:
        t.done.discard("gs")
    t.cpu.stale = True


def _syscall(t: Tracker, op: Op) -> None:
    if (_LSTAR if op.name == "syscall" else 0x176) not in t.done:
        t.violate(op, "msr", f"{op.name.upper()} before the MSR that says where it leads has been written")
    t.cpu.stale = True


def _cpuid(t: Tracker, op: Op) -> None:
    value = t.register(register("eax"))
    leaf = t.cpu.gpr(0) & 0xFFFFFFFF
    if not value[0] and leaf in _SUBLEAVES:
        value = t.register(register("ecx"))
    if value[0]:
        t.use(op, value, "is the leaf that CPUID is asked for")
    for index in range(4):
        t.regs[index] = DEFINED


def _port(t: Tracker, op: Op, operand: Operand) -> int:
    value = t.read(op, operand)
    if value[0]:
        t.use(op, value, "is the number of a port")
    return t.concrete(op, operand) & 0xFFFF


def _in(t: Tracker, op: Op) -> None:
    port = _port(t, op, op.operands[1])
    t.write(op, op.operands[0], DEFINED)
    if port in _ABSENT:
        t.polls[op.address] = times = t.polls.get(op.address, 0) + 1
        if times >= _POLLED:
            t.violate(
                op, "devices", f"port {port:#x} is polled, where there is no device: it has been read {times} times"
            )


def _out(t: Tracker, op: Op) -> None:
    _port(t, op, op.operands[0])
    value = t.read(op, op.operands[1])
    if value[0]:
        t.use(op, value, "is written to a port")


def _hypercall(t: Tracker, op: Op) -> None:
    value = t.register(register("eax"))
    if value[0]:
        t.use(op, value, "is the number of a hypercall")
    t.regs[0] = DEFINED


RULES: dict[str, Rule] = {
    "mov": _mov, "pop": _pop, "jmp": _jump, "call": _jump, "ljmp": _far, "lcall": _far, "lmsw": _lmsw,
    **dict.fromkeys(("lds", "les", "lfs", "lgs", "lss"), _load_far),
    **dict.fromkeys(("retf", "retfq", "iret", "iretd", "iretq"), _far_return),
    "lgdt": _table, "lidt": _table, "sgdt": _store_table, "sidt": _store_table, "ltr": _task, "lldt": _task,
    "str": _store_task, "sldt": _store_task,
    **dict.fromkeys(("int", "int3", "into", "sti"), _interrupt), "rdmsr": _rdmsr, "wrmsr": _wrmsr, "swapgs": _swapgs,
    "syscall": _syscall, "sysenter": _syscall, "cpuid": _cpuid, "in": _in, "out": _out, "vmcall": _hypercall,
    "vmmcall": _hypercall,
}  # fmt: skip
