"""An independent judge of plans: it shares no code with the planner and knows the rules of facts/xen-abi.md alone."""

from __future__ import annotations

import struct
from itertools import pairwise

from pvh.plan.record import FileBytes, LiteralBytes, Plan

RAM, RESERVED, NVS = 1, 2, 4
PAGE = 0x1000
LOW_END = 0xFC000000
GIB4 = 1 << 32
TYPES = {"kernel": RAM, "module": RAM, "start-info": RAM, "acpi": NVS, "special": RESERVED}


def literal_memory(plan: Plan) -> dict[int, bytes]:
    """Return what the planner itself put into memory, by address."""
    return {r.start: r.content.data for r in plan.ranges if isinstance(r.content, LiteralBytes)}


def check(plan: Plan) -> None:
    """Fail unless the plan is right."""
    _check_map(plan)
    _check_ranges(plan)
    _check_start_info(plan)
    _check_acpi(plan)
    _check_backing(plan)


def _check_map(plan: Plan) -> None:
    spans = [(e.addr, e.addr + e.size) for e in plan.memory_map]
    assert spans == sorted(spans)
    assert all(size > 0 for size in (b - a for a, b in spans))
    assert all(left[1] <= right[0] for left, right in pairwise(spans)), "disjoint"
    ram = [(e.addr, e.addr + e.size) for e in plan.memory_map if e.type == RAM]
    stolen = sum(e.size for e in plan.memory_map if e.type == NVS and e.addr < min(LOW_END, plan.options.memory))
    assert sum(b - a for a, b in ram) + stolen == plan.options.memory
    assert ram[0][0] == 0, "RAM from 0: no VGA or BIOS hole"
    assert not any(a < GIB4 and b > LOW_END for a, b in ram), "the hole"
    assert any(a == GIB4 for a, _ in ram) == (plan.options.memory > LOW_END)
    reserved = [(e.addr, e.size) for e in plan.memory_map if e.type == RESERVED]
    assert reserved == ([(0xFEFF8000, 0x8000)] if plan.options.platform == "xen" else [])


def _check_ranges(plan: Plan) -> None:
    events = sorted([(r.start, 1) for r in plan.ranges] + [(r.end, 0) for r in plan.ranges])
    depth = 0
    for _, opens in events:
        depth += 1 if opens else -1
        assert 0 <= depth <= 1, "no two ranges overlap"
    for r in plan.ranges:
        holders = [e for e in plan.memory_map if e.addr <= r.start and r.end <= e.end]
        if r.kind == "hole":
            assert not any(e.addr < r.end and r.start < e.end for e in plan.memory_map)
        else:
            assert [e.type for e in holders] == [TYPES[r.kind]], (r.name, r.kind)
        if isinstance(r.content, FileBytes):
            assert r.content.count <= r.size
            assert r.content.offset + r.content.count <= r.content.source.size
        if isinstance(r.content, LiteralBytes):
            assert len(r.content.data) <= r.size
        assert r.reason, "each range says why"
    special = [r.start for r in plan.ranges if r.kind == "special"]
    assert special == ([0xFEFF8000 + PAGE * i for i in range(8)] if plan.options.platform == "xen" else [])
    assert [r.start for r in plan.ranges if r.kind == "hole"] == [0xFEE00000]


def _check_start_info(plan: Plan) -> None:
    info, options = plan.start_info, plan.options
    at = {r.name: r for r in plan.ranges if r.kind == "start-info"}
    assert at["start_info"].start == info.paddr
    assert info.paddr % PAGE == 0
    assert at["start_info"].size == 56, "Linux copies 56 bytes whatever the version"
    assert info.cmdline_paddr == (at["cmdline"].start if options.cmdline else 0)
    assert info.modlist_paddr == (at["modlist"].start if options.modules else 0)
    assert info.memmap_paddr == (at["memmap"].start if options.abi == "v1" else 0)
    if options.modules:
        assert at["modlist"].size == len(options.modules) * (8 if options.abi == "draft-c" else 32)
    if options.abi == "v1":
        assert at["memmap"].size == 24 * len(plan.memory_map)
    assert all(r.start % 8 == 0 and r.end <= GIB4 for r in at.values())
    last = max(r.end for r in at.values())
    for index, (module, spec) in enumerate(zip(info.modules, options.modules, strict=True)):
        assert module.path == spec.path
        assert module.paddr % PAGE == 0, "modules can be mapped"
        assert module.paddr > 0
        assert module.paddr + module.size <= LOW_END
        assert not module.paddr < last <= module.paddr + module.size
        has = spec.cmdline is not None and options.abi != "draft-c"
        assert module.cmdline_paddr == (at[f"module {index} cmdline"].start if has else 0)
    mine = [r for r in plan.ranges if r.kind == "module"]
    assert sorted((r.start, r.size) for r in mine) == sorted((m.paddr, m.size) for m in info.modules if m.size)


def _check_acpi(plan: Plan) -> None:
    memory = literal_memory(plan)
    rsdp_range = next(r for r in plan.ranges if r.name == "RSDP")
    assert plan.start_info.rsdp_paddr == (0 if plan.options.abi == "draft-c" else rsdp_range.start)
    rsdp = memory[rsdp_range.start]
    assert sum(rsdp[:20]) % 256 == sum(rsdp[:36]) % 256 == 0
    signature, _, _, revision, rsdt, length, xsdt, _ = struct.unpack("<8sB6sBIIQB3x", rsdp[:36])
    assert (signature, revision, length) == (b"RSD PTR ", 2, 36)
    for root, width, fadt_revision in ((rsdt, 4, 1), (xsdt, 8, 5)):
        table = memory[root]
        assert table[:4] == (b"RSDT" if width == 4 else b"XSDT")
        assert sum(table) % 256 == 0
        entries = [int.from_bytes(table[i : i + width], "little") for i in range(36, len(table), width)]
        assert [memory[e][:4] for e in entries] == [b"FACP", b"APIC"]
        fadt, madt = (memory[e] for e in entries)
        assert fadt[8] == fadt_revision
        assert sum(fadt) % 256 == sum(madt) % 256 == 0
        assert memory[struct.unpack_from("<I", fadt, 36)[0]][:4] == b"FACS"
        assert memory[struct.unpack_from("<I", fadt, 40)[0]][:4] == b"DSDT"
        assert len(madt) == 44 + 8 * plan.options.vcpus


def _check_backing(plan: Plan) -> None:
    assert all(start % PAGE == size % PAGE == 0 < size for start, size in plan.backed)
    ends = [start + size for start, size in plan.backed]
    assert all(end < start for end, (start, _) in zip(ends, plan.backed[1:], strict=False)), "sorted, disjoint, joined"
    for e in plan.memory_map:
        assert any(s <= e.addr and e.end <= s + n for s, n in plan.backed), "whatever the guest is told of exists"
    announced = sum(-(-e.end // PAGE) - e.addr // PAGE for e in plan.memory_map) * PAGE
    assert sum(n for _, n in plan.backed) <= announced, "and nothing else"
