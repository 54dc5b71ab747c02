"""What the platform puts into guest-physical memory beside the kernel: ACPI, special pages, the local APIC's hole."""

from __future__ import annotations

from pvh.abi import elfnote, features
from pvh.kernel.record import Kernel
from pvh.plan import acpi, layout
from pvh.plan.memory_map import Span, identity_page_directory
from pvh.plan.options import BootOptions
from pvh.plan.record import LiteralBytes, Range
from pvh.record import dataclass


@dataclass(frozen=True, slots=True)
class Firmware:
    """The platform's part of a plan.

    nvs, reserved  spans the memory map announces with these types
    rsdp           physical address of the RSDP
    """

    ranges: tuple[Range, ...]
    nvs: tuple[Span, ...]
    reserved: tuple[Span, ...]
    rsdp: int
    warnings: tuple[str, ...]


def firmware(kernel: Kernel, options: BootOptions) -> Firmware:
    """Return ACPI for the vCPUs, unless there is to be none, and, on platform xen, the special pages."""
    if not options.variation.acpi:
        return Firmware(ranges=_fixed_pages(options), nvs=(), reserved=_reserved(options), rsdp=0, warnings=())
    tables = acpi.tables(options.vcpus, options.platform)
    tables_end = layout.page_up(tables[-1].end)
    assert tables_end - layout.ACPI_TABLES <= layout.ACPI_TABLES_ROOM
    rsdp, reason, warnings = _rsdp_place(kernel, tables_end)
    ranges = [_table_range(table) for table in tables]
    ranges.append(Range(rsdp, layout.RSDP_SIZE, "acpi", "RSDP", reason, LiteralBytes(acpi.rsdp(tables))))
    ranges += _fixed_pages(options)
    return Firmware(
        ranges=tuple(ranges),
        nvs=(
            (rsdp, rsdp + layout.RSDP_SIZE),
            (layout.ACPI_INFO.start, layout.ACPI_INFO.end),
            (layout.ACPI_TABLES, tables_end),
        ),
        reserved=_reserved(options),
        rsdp=rsdp,
        warnings=warnings,
    )


def _special(options: BootOptions) -> tuple[layout.Place, ...]:
    return layout.SPECIAL_PAGES if options.platform == "xen" else ()


def _fixed_pages(options: BootOptions) -> tuple[Range, ...]:
    """Return the local APIC's hole and the special pages."""
    ranges: list[Range] = []
    for place in (layout.LOCAL_APIC, *_special(options)):
        content = LiteralBytes(identity_page_directory()) if place.name == "IDENT_PT page" else None
        ranges.append(Range(place.start, place.size, place.kind, place.name, place.reason, content))
    return tuple(ranges)


def _reserved(options: BootOptions) -> tuple[Span, ...]:
    special = _special(options)
    return ((special[0].start, special[-1].end),) if special else ()


def _table_range(table: acpi.Table) -> Range:
    """acpi_info is given its whole page, as on Xen; a table just its bytes."""
    info = layout.ACPI_INFO
    if table.address == info.start:
        return Range(info.start, info.size, info.kind, info.name, info.reason, LiteralBytes(table.data))
    return Range(table.address, len(table.data), "acpi", table.name, layout.TABLES_REASON, LiteralBytes(table.data))


def _rsdp_place(kernel: Kernel, behind_tables: int) -> tuple[int, str, tuple[str, ...]]:
    """Return where the RSDP goes, why, and a warning when the kernel itself is where it should be."""
    guest_os = kernel.note(elfnote.GUEST_OS)
    searches = (
        guest_os is not None
        and guest_os.value == "linux"
        and not kernel.features.supported & 1 << features.LINUX_RSDP_UNRESTRICTED
    )
    if not searches:
        return behind_tables, layout.RSDP_HIGH_REASON, ()
    if kernel.start < layout.RSDP_BIOS + layout.RSDP_SIZE and kernel.end > layout.RSDP_BIOS:
        warning = (
            f"the kernel covers {layout.RSDP_BIOS:#x}, where a Linux without linux_rsdp_unrestricted looks for the "
            "RSDP; it is behind the ACPI tables instead, named by rsdp_paddr alone"
        )
        return behind_tables, layout.RSDP_HIGH_REASON, (warning,)
    return layout.RSDP_BIOS, layout.RSDP_BIOS_REASON, ()
