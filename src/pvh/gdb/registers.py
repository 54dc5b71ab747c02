"""Registers as GDB counts them: the target description, and CpuState in its order and back.

The features are GDB's own (gdb/features/i386, "org.gnu.gdb.i386.core" and ".segments"); ours, "org.pvh.system", holds
control registers and descriptor tables, for reading. What is not known, the x87 unit, is said to be unavailable.
"""

from __future__ import annotations

from pvh.build.cpu_state import CpuState, SegmentRegister
from pvh.hints import TYPE_CHECKING
from pvh.record import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Callable

# GDB's order of the general registers, as places of CpuState's; in 32-bit code the two are the same.
_ORDER_64 = (0, 3, 1, 2, 6, 7, 5, 4, *range(8, 16))
_NAMES_64 = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)))
_NAMES_32 = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
_SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs")
_FPU = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
_SYSTEM = ("cr0", "cr2", "cr3", "cr4", "efer", "gdtr_base", "gdtr_limit", "idtr_base", "idtr_limit", "tr", "ldtr")


@dataclass(frozen=True, slots=True)
class Register:
    """One register: name, bytes, GDB's type, how to read it of a CpuState (None: unavailable), how to change it."""

    name: str
    size: int
    type: str
    read: Callable[[CpuState], int] | None
    write: Callable[[CpuState, int], CpuState] | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """A machine as GDB sees it: 64 or 32 bits, its registers in order, the features they belong to."""

    bits: int
    registers: tuple[Register, ...]
    features: tuple[tuple[str, int], ...]

    def pack(self, state: CpuState) -> bytes:
        """Return all registers as `g` answers them."""
        return b"".join(self.one(register, state) for register in self.registers)

    def one(self, register: Register, state: CpuState) -> bytes:
        """Return one register in hexadecimal digits, the guest's byte order."""
        if register.read is None:
            return b"x" * (2 * register.size)
        value = register.read(state) & (1 << 8 * register.size) - 1
        return value.to_bytes(register.size, "little").hex().encode()

    def unpack(self, state: CpuState, digits: bytes) -> CpuState:
        """Return a state changed by what `G` says. Raises ValueError for what is no such text."""
        for register in self.registers:
            part, digits = digits[: 2 * register.size], digits[2 * register.size :]
            if register.write and b"x" not in part:
                state = self.change(register, state, part)
        return state

    def change(self, register: Register, state: CpuState, digits: bytes) -> CpuState:
        """Return a state with one register changed. Raises ValueError."""
        raw = bytes.fromhex(digits.decode("ascii"))
        if register.write is None or len(raw) != register.size:
            raise ValueError(register.name)
        return register.write(state, int.from_bytes(raw, "little"))

    def description(self) -> str:
        """Return the target description (GDB's manual, appendix G)."""
        lines = ['<?xml version="1.0"?>', '<!DOCTYPE target SYSTEM "gdb-target.dtd">', '<target version="1.0">']
        lines.append(f"<architecture>{'i386:x86-64' if self.bits == 64 else 'i386'}</architecture>")
        at = 0
        for feature, count in self.features:
            lines.append(f'<feature name="{feature}">')
            lines += [_element(register) for register in self.registers[at : at + count]]
            lines.append("</feature>")
            at += count
        return "\n".join([*lines, "</target>"])


def _element(register: Register) -> str:
    return f'<reg name="{register.name}" bitsize="{8 * register.size}" type="{register.type}"/>'


def _general(place: int, bits: int) -> tuple[Callable[[CpuState], int], Callable[[CpuState, int], CpuState]]:
    def read(state: CpuState) -> int:
        return state.gprs[place]

    def write(state: CpuState, value: int) -> CpuState:
        kept = state.gprs[place] >> bits << bits
        return replace(state, gprs=(*state.gprs[:place], kept | value, *state.gprs[place + 1 :]))

    return read, write


def _segment(name: str) -> Callable[[CpuState], int]:
    return lambda state: _segment_of(state, name).selector


def _base(name: str) -> Callable[[CpuState], int]:
    return lambda state: _segment_of(state, name).base


def _segment_of(state: CpuState, name: str) -> SegmentRegister:
    found: SegmentRegister = getattr(state, name)
    return found


def _system(name: str) -> Callable[[CpuState], int]:
    if name in ("tr", "ldtr"):
        return _segment(name)
    table, _, part = name.partition("_")
    if part:
        return lambda state: getattr(getattr(state, table), part)
    return lambda state: getattr(state, name)


def _core(bits: int) -> tuple[Register, ...]:
    size = bits // 8
    places, names = (_ORDER_64, _NAMES_64) if bits == 64 else (tuple(range(8)), _NAMES_32)
    types = {"rbp": "data_ptr", "rsp": "data_ptr", "ebp": "data_ptr", "esp": "data_ptr"}
    general = (
        Register(name, size, types.get(name, f"int{bits}"), *_general(place, bits))
        for name, place in zip(names, places, strict=True)
    )
    return (
        *general,
        Register("rip" if bits == 64 else "eip", size, "code_ptr",
                 lambda state: state.rip, lambda state, value: replace(state, rip=value)),
        Register("eflags", 4, "int32", lambda state: state.rflags, lambda state, value: replace(state, rflags=value)),
        *(Register(name, 4, "int32", _segment(name)) for name in _SEGMENTS),
        *(Register(f"st{n}", 10, "i387_ext", None) for n in range(8)),
        *(Register(name, 4, "int", None) for name in _FPU),
    )  # fmt: skip


def _layout(bits: int) -> Layout:
    core = _core(bits)
    segments = tuple(Register(f"{name}_base", 8, "int64", _base(name)) for name in ("fs", "gs")) if bits == 64 else ()
    system = tuple(Register(name, 8, "int64", _system(name)) for name in _SYSTEM)
    features = [("org.gnu.gdb.i386.core", len(core))]
    if segments:
        features.append(("org.gnu.gdb.i386.segments", len(segments)))
    return Layout(bits, (*core, *segments, *system), (*features, ("org.pvh.system", len(system))))


LAYOUTS = {bits: _layout(bits) for bits in (32, 64)}


def layout_for(state: CpuState) -> Layout:
    """Return the layout of the code a processor runs: 16-bit code has the 32-bit one."""
    return LAYOUTS[64 if state.bits == 64 else 32]
