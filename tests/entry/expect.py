"""What the entry-state guest (tests/guests/entry.S) must print for a plan, and what of it a run did not.

Plain Python over the package's records, without pytest: the tests and the nested KVM's runner both use it.
"""

from __future__ import annotations

import struct
from difflib import unified_diff

from pvh.abi import start_info as abi
from pvh.build.cpu_state import GPR_NAMES, CpuState
from pvh.build.entry import entry_state
from pvh.plan.record import LiteralBytes, Plan

MARK = 0x5045454B  # what entry.S keeps at `mark`
_FAULT_FREE = 0xFFFFFFFF
_HIGH_RAM = 1 << 32


def expected(plan: Plan) -> list[str]:
    """Return every line of the dump, in order. A command line with `quick` in it leaves the lines of TR out."""
    structures = _structures(plan)
    lines = ["stage=entry", *_registers(entry_state(plan)), *_hidden_parts()]
    if "quick" not in plan.options.cmdline:
        lines += _task_register()
    return [*lines, *structures, "stage=long", *_long_mode(), *structures, *_high_ram(plan), "stage=end"]


def differences(plan: Plan, dump: bytes) -> list[str]:
    """Return how a dump differs from what it must be, as lines of a diff; empty means not at all."""
    found = dump.decode("utf-8", "backslashreplace").splitlines()
    return list(unified_diff(expected(plan), found, "wanted", "found", n=0, lineterm=""))


def hidden_differences(plan: Plan, state: CpuState) -> list[str]:
    """Return what of a processor's state, read by the host before the first instruction, is not the entry state's.

    It covers what the guest cannot see: the busy bit of TR, null descriptors, attributes, and all else once more.
    """
    wanted = entry_state(plan)
    names = [name for name in CpuState.__slots__ if getattr(wanted, name) != getattr(state, name)]
    return [f"{name}: wanted {getattr(wanted, name)}, found {getattr(state, name)}" for name in names]


def _registers(state: CpuState) -> list[str]:
    """Print what instructions store directly (pvh.pandoc; xg_dom_x86.c for what that leaves open)."""
    gprs = dict(zip(GPR_NAMES, state.gprs, strict=True))
    order = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
    return [
        *(f"e{name[1:]}={gprs[name]:08x}" for name in order),
        f"eip={state.rip:08x}",
        f"eflags={state.rflags:08x}",
        *(f"{name}={getattr(state, name):08x}" for name in ("cr0", "cr2", "cr3", "cr4", "dr6", "dr7")),
        f"efer={state.efer:016x}",
        f"mtrr_def_type={state.mtrr_def_type:016x}",
        f"gdtr={state.gdtr.base:08x}/{state.gdtr.limit:08x}",
        f"idtr={state.idtr.base:08x}/{state.idtr.limit:08x}",
        *(f"{name}={getattr(state, name).selector:08x}" for name in ("cs", "ds", "es", "ss", "fs", "gs", "ldtr", "tr")),
    ]


def _hidden_parts() -> list[str]:
    """Flat 32-bit CS, DS, ES and SS, by what they do: bases of 0, limits of 4 GiB, D and B set, data writable."""
    return [
        f"cs.base.read={MARK:08x}",
        *(f"{name}.base.write={MARK + 1:08x}" for name in ("ds", "es", "ss")),
        "cs.d=00000001",
        "ss.b=fffffffc",
        *(f"{name}.limit={_FAULT_FREE:08x}" for name in ("cs", "ds", "es", "ss")),
    ]


def _task_register() -> list[str]:
    """TR: the inner stack pointer of INT at CPL 3 comes from physical 4; the I/O bitmap ends with byte 0x67."""
    return ["tr.esp0=ffffffec", "tr.io.inside=00000001", "tr.io.outside=00000000"]


def _long_mode() -> list[str]:
    """After the guest's own switch. R8 to R15 still are what the builder set; 32-bit code cannot reach them."""
    numbered = (f"r{number}={0:016x}" for number in range(8, 16))
    return ["cr0=80000011", "cr4=00000020", "efer=00000500", *numbered, "rax.high=ffffffff"]


def _structures(plan: Plan) -> list[str]:
    info, layout = plan.start_info, plan.options.abi
    lines = [f"start_info={info.paddr:08x}", f"si.magic={abi.MAGIC:08x}"]
    if layout == "draft-c":
        lines += [
            f"si.flags={info.flags:08x}",
            f"si.cmdline_paddr={info.cmdline_paddr:08x}",
            f"si.nr_modules={len(info.modules):08x}",
            f"si.modlist_paddr={info.modlist_paddr:08x}",
        ]
    else:
        lines += [
            f"si.version={int(layout == 'v1'):08x}",
            f"si.flags={info.flags:08x}",
            f"si.nr_modules={len(info.modules):08x}",
            f"si.modlist_paddr={info.modlist_paddr:016x}",
            f"si.cmdline_paddr={info.cmdline_paddr:016x}",
            f"si.rsdp_paddr={info.rsdp_paddr:016x}",
            *_rsdp(plan),
        ]
    if layout == "v1":
        lines += _memmap(plan)
    return [*lines, f"cmdline={_quoted(plan.options.cmdline or None)}", *_modules(plan)]


def _rsdp(plan: Plan) -> list[str]:
    """The ACPI root pointer: signature, OEM and revision as planned, and both checksums 0 (ACPI 6.5, 5.2.5.3)."""
    if not plan.start_info.rsdp_paddr:
        return []
    content = next(piece.content for piece in plan.ranges if piece.start == plan.start_info.rsdp_paddr)
    assert isinstance(content, LiteralBytes)
    assert content.data.startswith(b"RSD PTR ")
    return [f"rsdp.head={content.data[:16].hex()}", "rsdp.sums=0000"]


def _memmap(plan: Plan) -> list[str]:
    entries = plan.memory_map
    return [
        f"si.memmap_paddr={plan.start_info.memmap_paddr:016x}",
        f"si.memmap_entries={len(entries):08x}",
        f"si.reserved={0:08x}",
        *(f"memmap{i:02x}={e.addr:016x}/{e.size:016x}/{e.type:08x}/{0:08x}" for i, e in enumerate(entries)),
    ]


def _modules(plan: Plan) -> list[str]:
    """Each list entry as the ABI lays it out, and the module's own bytes."""
    lines: list[str] = []
    draft = plan.options.abi == "draft-c"
    for index, (spec, module) in enumerate(zip(plan.options.modules, plan.start_info.modules, strict=True)):
        with open(spec.path, "rb") as stream:
            data = stream.read()
        entry = (
            struct.pack("<II", module.paddr, len(data))
            if draft
            else struct.pack("<QQQQ", module.paddr, len(data), module.cmdline_paddr, 0)
        )
        name = f"module{index:02x}"
        lines += [f"{name}.entry={entry.hex()}", f"{name}.sum={checksum(data):08x}", f"{name}.head={data[:16].hex()}"]
        if not draft:
            lines.append(f"{name}.cmdline={_quoted(spec.cmdline)}")
    return lines


def _high_ram(plan: Plan) -> list[str]:
    """RAM at 4 GiB can be written, where version 1's memory map has it."""
    has = plan.options.abi == "v1" and any(e.addr == _HIGH_RAM for e in plan.memory_map)
    return [f"ram.4g.write={MARK:08x}"] if has else []


def checksum(data: bytes) -> int:
    """Return entry.S's checksum: for each byte, rotate 32 bits left by one, then add."""
    total = 0
    for byte in data:
        total = ((total << 1 | total >> 31) + byte) & 0xFFFFFFFF
    return total


def _quoted(text: str | None) -> str:
    return "none" if text is None else f'"{text}"'
