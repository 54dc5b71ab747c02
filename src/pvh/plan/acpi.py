"""The ACPI tables of a PVH guest, with the values libxl gives them (tools/libacpi/build.c, static_tables.c).

For platform xen they differ from libxl's in the DSDT only: it describes the processors the guest has, where Xen's is
compiled for 128, and has no CPU hotplug, as nothing here plugs processors. Platform bare has none of the fixed power
management hardware either, and says so (hardware-reduced ACPI).
"""

from __future__ import annotations

import struct

from pvh.plan import aml, layout
from pvh.plan.options import Platform
from pvh.record import dataclass

_HEADER = "<4sIBB6s8sI4sI"
_IDENTITY = (b"Xen", b"HVM", 0, b"HVML", 0)  # OEM id, OEM table id, OEM revision, creator id, creator revision
_HEADER_SIZE = 36
_CHECKSUM_AT = 9
_SYSTEM_IO = 1

# FADT fixed feature flags and IA-PC boot flags (ACPI 6.5, tables 5.10 and 5.11)
_WBINVD, _PROC_C1, _PWR_BUTTON, _SLP_BUTTON, _FIX_RTC = 1 << 0, 1 << 2, 1 << 4, 1 << 5, 1 << 6
_TMR_VAL_EXT, _USE_PLATFORM_CLOCK, _HW_REDUCED = 1 << 8, 1 << 15, 1 << 20
_NO_VGA, _NO_CMOS_RTC = 1 << 2, 1 << 5
_XEN_FLAGS = _WBINVD | _PROC_C1 | _PWR_BUTTON | _SLP_BUTTON | _FIX_RTC | _TMR_VAL_EXT | _USE_PLATFORM_CLOCK
_BARE_FLAGS = _WBINVD | _PROC_C1 | _PWR_BUTTON | _SLP_BUTTON | _HW_REDUCED

_PCAT_COMPAT = 1  # MADT flag: a PC's two 8259 exist
_LAPIC_ENABLED = 1


@dataclass(frozen=True, slots=True)
class Table:
    """A finished table: guest-physical address, name for people, bytes."""

    address: int
    name: str
    data: bytes

    @property
    def end(self) -> int:
        """First address behind it."""
        return self.address + len(self.data)


def _checksummed(data: bytes, at: int, count: int | None = None) -> bytes:
    """Return data with the byte at `at` set so that its first count bytes (all) add up to 0."""
    total = sum(data[:count]) - data[at]
    return data[:at] + bytes([-total & 0xFF]) + data[at + 1 :]


def _table(signature: bytes, revision: int, body: bytes) -> bytes:
    """Put a standard header before a body."""
    head = struct.pack(_HEADER, signature, _HEADER_SIZE + len(body), revision, 0, *_IDENTITY)
    return _checksummed(head + body, _CHECKSUM_AT)


def _register(bits: int, address: int) -> bytes:
    """Encode a Generic Address Structure of an I/O port; all zero when there is none (ACPI 6.5, 5.2.3.2)."""
    return struct.pack("<BBBBQ", _SYSTEM_IO if bits else 0, bits, 0, 0, address)


def _facs() -> bytes:
    """FACS version 1; it has no header and no checksum."""
    return struct.pack("<4sIIIIIQB31x", b"FACS", 64, 0, 0, 0, 0, 0, 1)


def _fadt(revision: int, facs: int, dsdt: int, platform: Platform) -> bytes:
    """FADT of revision 5, or 1 for the RSDT (which readers of ACPI 1.0 follow).

    On xen the PM1a, GPE0 and reset ports are those libxl names; nothing answers there, on Xen neither.
    """
    xen = platform == "xen"
    event, control, gpe = (0xB000, 0xB004, 0xAFE0) if xen else (0, 0, 0)
    boot = _NO_VGA | _NO_CMOS_RTC
    body = struct.pack("<IIxBHIBBBB", facs, dsdt, 0, 9 if xen else 0, 0, 0, 0, 0, 0)
    body += struct.pack("<8I", event, 0, control, 0, 0, 0, gpe, 0)
    body += struct.pack("<8B", *((4, 2, 0, 0, 4, 0, 0, 0) if xen else (0,) * 8))
    # C2 and C3 latencies above 100 and 1000 mean that there are no such states.
    body += struct.pack("<HHHHBBBBB", 0xFFF, 0xFFF, 0, 0, 0, 0, 0, 0, 0)
    body += struct.pack("<HxI", boot, _XEN_FLAGS if xen else _BARE_FLAGS)
    if revision == 1:
        return _table(b"FACP", 1, body)
    body += (_register(8, 0xCF9) + b"\x06" if xen else _register(0, 0) + b"\x00") + bytes(3)
    body += struct.pack("<QQ", facs, dsdt)
    x_event, x_control = (_register(32, event), _register(16, control)) if xen else (_register(0, 0),) * 2
    none = _register(0, 0)
    body += x_event + none + x_control + none * 5  # PM1a, PM1b event; PM1a, PM1b control; PM2, timer, GPE0, GPE1
    body += none * 2  # sleep control and status
    return _table(b"FACP", revision, body)


def _madt(vcpus: int, platform: Platform) -> bytes:
    """MADT revision 2 with one local APIC for each vCPU: ACPI processor id = vCPU id."""
    flags = _PCAT_COMPAT if platform == "xen" else 0
    entries = b"".join(struct.pack("<BBBBI", 0, 8, vcpu, layout.apic_id(vcpu), _LAPIC_ENABLED) for vcpu in range(vcpus))
    return _table(b"APIC", 2, struct.pack("<II", layout.LOCAL_APIC.start, flags) + entries)


def _processor(vcpu: int) -> bytes:
    """A processor device whose _MAT and _STA read its MADT entry, found through acpi_info (mk_dsdt.c)."""
    entry = aml.ADD + aml.name_string("\\_SB.MAPA") + aml.integer(8 * vcpu) + aml.ZERO
    mat = aml.RETURN + aml.TO_BUFFER + aml.name_string("MAT") + aml.ZERO
    present = aml.package(aml.IF, aml.name_string("FLG") + aml.RETURN + aml.integer(0xF))
    body = (
        aml.name("_HID", aml.string("ACPI0007"))
        + aml.name("_UID", aml.integer(vcpu))
        + aml.memory_region("MATR", entry, 8)
        + aml.field("MATR", [("MAT", 64)])
        + aml.field("MATR", [("", 32), ("FLG", 1)])
        + aml.method("_MAT", mat)
        + aml.method("_STA", present + aml.RETURN + aml.ZERO)
    )
    return aml.device(f"PR{vcpu:02X}", body)


def _dsdt(vcpus: int) -> bytes:
    r"""DSDT revision 5: acpi_info as fields, and the processors.

    No \_S5: a guest powers off by SCHEDOP_shutdown (or the exit port), as the PM1a control port does not answer.
    """
    info = aml.memory_region("BIOS", aml.integer(layout.ACPI_INFO.start), 40)
    info += aml.field("BIOS", [("", 16), ("NCPU", 16), ("", 64), ("MSUA", 32), ("MAPA", 32)])
    return _table(b"DSDT", 5, aml.scope("\\_SB", info + b"".join(map(_processor, range(vcpus)))))


def _acpi_info(vcpus: int, madt: int) -> bytes:
    """Xen's struct acpi_info: processors, addresses of the MADT's checksum and of its first entry, the rest 0."""
    return struct.pack("<BxHIIIIIQQ", 0, vcpus, 0, 0, madt + _CHECKSUM_AT, madt + _HEADER_SIZE + 8, 0, 0, 0)


def tables(vcpus: int, platform: Platform) -> tuple[Table, ...]:
    """Return acpi_info and the tables, in the order and at the addresses libacpi allocates; the XSDT, RSDT last."""
    made = [Table(layout.ACPI_TABLES, "FACS", _facs())]

    def add(name: str, data: bytes) -> int:
        made.append(Table(-(-made[-1].end // 16) * 16, name, data))
        return made[-1].address

    facs = made[0].address
    dsdt = add("DSDT", _dsdt(vcpus))
    old_fadt = add("FADT revision 1", _fadt(1, facs, dsdt, platform))
    fadt = add("FADT", _fadt(5, facs, dsdt, platform))
    madt = add("MADT", _madt(vcpus, platform))
    add("XSDT", _table(b"XSDT", 1, struct.pack("<QQ", fadt, madt)))
    add("RSDT", _table(b"RSDT", 1, struct.pack("<II", old_fadt, madt)))
    return (Table(layout.ACPI_INFO.start, layout.ACPI_INFO.name, _acpi_info(vcpus, madt)), *made)


def rsdp(made: tuple[Table, ...]) -> bytes:
    """Return the RSDP of revision 2 that leads to the tables."""
    at = {table.name: table.address for table in made}
    data = struct.pack("<8sB6sBIIQB3x", b"RSD PTR ", 0, b"Xen", 2, at["RSDT"], 36, at["XSDT"], 0)
    return _checksummed(_checksummed(data, 8, 20), 32)
