"""ACPI as libxl gives a PVH domU (xen/tools/libacpi/build.c, static_tables.c; ACPI specification 6.5)."""

from __future__ import annotations

import shutil
import struct
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from pvh.plan import acpi
from pvh.plan.options import Platform


def tables(vcpus: int = 1, platform: Platform = "xen") -> dict[str, acpi.Table]:
    return {table.name: table for table in acpi.tables(vcpus, platform)}


def at(data: bytes, offset: int, size: int) -> int:
    return int.from_bytes(data[offset : offset + size], "little")


@pytest.mark.parametrize("platform", ["xen", "bare"])
@pytest.mark.parametrize("vcpus", [1, 2, 128])
def test_tables_follow_acpi_info_in_libacpis_order_on_16_bytes(vcpus: int, platform: Platform) -> None:
    made = acpi.tables(vcpus, platform)
    names = ["acpi_info", "FACS", "DSDT", "FADT revision 1", "FADT", "MADT", "XSDT", "RSDT"]
    assert [table.name for table in made] == names
    assert (made[0].address, made[1].address) == (0xFC000000, 0xFC001000)
    for earlier, later in pairwise(made[1:]):
        assert later.address == (earlier.end + 15) // 16 * 16
    assert made[-1].end <= 0xFC001000 + 16 * 4096, "libxl has room for 16 pages"


@pytest.mark.parametrize("platform", ["xen", "bare"])
def test_every_header_has_xens_identity_its_length_and_a_checksum(platform: Platform) -> None:
    expected = {
        "DSDT": (b"DSDT", 5), "FADT revision 1": (b"FACP", 1), "FADT": (b"FACP", 5), "MADT": (b"APIC", 2),
        "XSDT": (b"XSDT", 1), "RSDT": (b"RSDT", 1),
    }  # fmt: skip
    made = tables(3, platform)
    for name, (signature, revision) in expected.items():
        data = made[name].data
        assert data[:4] == signature
        assert at(data, 4, 4) == len(data)
        assert data[8] == revision
        assert sum(data) % 256 == 0
        assert data[10:36] == b"Xen\0\0\0HVM\0\0\0\0\0\0\0\0\0HVML\0\0\0\0"


def test_fadt_of_xen_names_libxls_ports_and_flags() -> None:
    made = tables()
    fadt = made["FADT"].data
    assert len(fadt) == 268
    assert len(made["FADT revision 1"].data) == 116
    assert fadt[36:116] == made["FADT revision 1"].data[36:], "revision 1 is its beginning"
    assert at(fadt, 46, 2) == 9  # SCI
    assert (at(fadt, 56, 4), at(fadt, 64, 4), at(fadt, 80, 4)) == (0xB000, 0xB004, 0xAFE0)
    assert at(fadt, 76, 4) == fadt[91] == 0  # no PM timer
    assert (fadt[88], fadt[89], fadt[92]) == (4, 2, 4)
    assert at(fadt, 109, 2) == 0x24  # no VGA, no CMOS RTC
    assert at(fadt, 112, 4) == 0x8175  # not hardware-reduced
    assert fadt[116:129] == struct.pack("<BBBBQB", 1, 8, 0, 0, 0xCF9, 6)  # reset register
    assert fadt[148:160] == struct.pack("<BBBBQ", 1, 32, 0, 0, 0xB000)  # X_PM1a_EVT
    assert fadt[172:184] == struct.pack("<BBBBQ", 1, 16, 0, 0, 0xB004)  # X_PM1a_CNT
    assert at(fadt, 36, 4) == at(fadt, 132, 8) == made["FACS"].address
    assert at(fadt, 40, 4) == at(fadt, 140, 8) == made["DSDT"].address


def test_fadt_of_bare_is_hardware_reduced_and_names_no_port() -> None:
    """ACPI 6.5, 4.1: a platform without the fixed hardware sets HW_REDUCED_ACPI (bit 20)."""
    made = tables(platform="bare")
    fadt = made["FADT"].data
    assert at(fadt, 112, 4) >> 20 & 1
    assert not any(fadt[56:96])
    assert not any(fadt[116:132])
    assert not any(fadt[148:])
    assert (at(fadt, 132, 8), at(fadt, 140, 8)) == (made["FACS"].address, made["DSDT"].address)


@pytest.mark.parametrize(("platform", "flags"), [("xen", 1), ("bare", 0)])
def test_madt_has_an_enabled_local_apic_of_twice_the_id_for_each_vcpu(platform: Platform, flags: int) -> None:
    madt = tables(128, platform)["MADT"].data
    assert struct.unpack_from("<II", madt, 36) == (0xFEE00000, flags)
    entries = list(struct.iter_unpack("<BBBBI", madt[44:]))
    assert entries == [(0, 8, vcpu, 2 * vcpu, 1) for vcpu in range(128)]


def test_acpi_info_leads_the_dsdt_to_the_madt() -> None:
    """The struct of tools/libacpi/build.c: +2 processors, +12 MADT checksum, +16 first local APIC entry."""
    made = tables(5)
    info, madt = made["acpi_info"].data, made["MADT"].address
    assert len(info) == 40
    assert (at(info, 2, 2), at(info, 12, 4), at(info, 16, 4)) == (5, madt + 9, madt + 44)
    assert sum(info) == sum(info[2:4]) + sum(info[12:20]), "no COM, LPT, HPET, PCI hole or generation id"


def test_facs_is_64_bytes_of_version_1_on_64_bytes() -> None:
    facs = tables()["FACS"]
    assert (facs.data[:4], at(facs.data, 4, 4), facs.data[32], len(facs.data)) == (b"FACS", 64, 1, 64)
    assert facs.address % 64 == 0


@pytest.mark.parametrize("vcpus", [1, 128])
def test_the_dsdt_is_aml_that_acpicas_own_compiler_reads_and_compiles_again(vcpus: int, tmp_path: Path) -> None:
    if not (iasl := shutil.which("iasl")):
        pytest.skip("no iasl: apt-get install acpica-tools")
    for name, table in tables(vcpus).items():
        if name == "acpi_info":
            continue
        path = tmp_path / f"{name.replace(' ', '-')}.aml"
        path.write_bytes(table.data)
        done = subprocess.run([iasl, "-d", path], capture_output=True, text=True, check=True)
        assert "rror" not in done.stdout + done.stderr
    listing = (tmp_path / "DSDT.dsl").read_text()
    assert listing.count('Name (_HID, "ACPI0007"') == vcpus
    for vcpu in range(vcpus):
        assert f"Device (PR{vcpu:02X})" in listing
    done = subprocess.run([iasl, tmp_path / "DSDT.dsl"], capture_output=True, text=True, check=True)
    assert "0 Errors, 0 Warnings" in done.stdout
