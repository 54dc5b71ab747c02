"""What Xen 4.17's libxl does otherwise than our plan, each difference as a step from a plan to a plan.

docs/oracle.md lists each by its name here, with the reason. With every step taken, a plan is what real Xen made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pvh.abi.start_info import MEMMAP_TYPE_ACPI, MEMMAP_TYPE_NVS
from pvh.abi.x86 import PAGE_SIZE
from pvh.plan import layout
from pvh.plan.record import MemoryMapEntry, Plan

Step = Callable[[Plan], Plan]

_TABLE_PAGES = 7  # what its tables take
_MODULES = 2  # HVMLOADER_MODULE_MAX_COUNT
_MODULE_ENTRY, _MODULE_CMDLINE = 32, 1024  # struct hvm_modlist_entry; HVMLOADER_MODULE_CMDLINE_SIZE


def acpi_type(plan: Plan) -> Plan:
    """Announce the ACPI areas as type ACPI."""
    typed = {MEMMAP_TYPE_NVS: MEMMAP_TYPE_ACPI}
    return replace(plan, memory_map=tuple(replace(e, type=typed.get(e.type, e.type)) for e in plan.memory_map))


def acpi_size(plan: Plan) -> Plan:
    """Fill seven pages with tables; the RSDP moves behind them."""
    rsdp = layout.ACPI_TABLES + _TABLE_PAGES * PAGE_SIZE

    def moved(entry: MemoryMapEntry) -> MemoryMapEntry:
        if entry.addr == layout.ACPI_TABLES:
            return replace(entry, size=_TABLE_PAGES * PAGE_SIZE)
        return replace(entry, addr=rsdp) if entry.addr == plan.start_info.rsdp_paddr else entry

    ranges = tuple(replace(r, start=rsdp) if r.start == plan.start_info.rsdp_paddr else r for r in plan.ranges)
    entries = tuple(moved(entry) for entry in plan.memory_map)
    return replace(plan, memory_map=entries, ranges=ranges, start_info=replace(plan.start_info, rsdp_paddr=rsdp))


def memmap_order(plan: Plan) -> Plan:
    """List low RAM, the special pages, RSDP, acpi_info, tables, high RAM."""
    last = {plan.start_info.rsdp_paddr: 2, layout.ACPI_INFO.start: 3, layout.ACPI_TABLES: 4, layout.HIGH_RAM_START: 5}
    order = {layout.SPECIAL_START: 1} | last
    return replace(plan, memory_map=tuple(sorted(plan.memory_map, key=lambda entry: order.get(entry.addr, 0))))


def memmap_place(plan: Plan) -> Plan:
    """Leave room for two modules and their command lines before the memory map, however many there are."""
    info = plan.start_info
    room = _MODULES * (_MODULE_ENTRY + _MODULE_CMDLINE)
    used = sum(r.size for r in plan.ranges if r.kind == "start-info" and r.name == "modlist")
    return replace(plan, start_info=replace(info, memmap_paddr=info.memmap_paddr - used + room))


STEPS: dict[str, Step] = {
    "acpi-type": acpi_type,
    "acpi-size": acpi_size,
    "memmap-order": memmap_order,
    "memmap-place": memmap_place,
}


def as_417(plan: Plan, without: str = "") -> Plan:
    """Return the plan as Xen 4.17 makes it, without one of the differences."""
    for name, step in STEPS.items():
        if name != without:
            plan = step(plan)
    return plan
