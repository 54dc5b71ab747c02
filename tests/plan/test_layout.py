"""The addresses of facts/xen-abi.md, section 4, each from Xen's own headers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pvh.plan import layout


def test_fixed_addresses_are_xens() -> None:
    assert layout.LOW_RAM_END == layout.ACPI_INFO.start == 0xFC000000
    assert layout.ACPI_TABLES == 0xFC001000
    assert layout.RSDP_BIOS == 0xFFFC0
    assert layout.LOCAL_APIC.start == 0xFEE00000
    names = ["PAGING", "ACCESS", "SHARING", "BUFIOREQ", "XENSTORE", "IOREQ", "IDENT_PT", "CONSOLE"]
    pages = {f"{name} page": (0xFEFF8 + index) << 12 for index, name in enumerate(names)}
    assert {place.name: place.start for place in layout.SPECIAL_PAGES} == pages


def test_every_fixed_place_has_its_reason() -> None:
    assert all(place.reason for place in (layout.ACPI_INFO, layout.LOCAL_APIC, *layout.SPECIAL_PAGES))


def test_local_apic_ids_are_even() -> None:
    assert [layout.apic_id(vcpu) for vcpu in (0, 1, 127)] == [0, 2, 254]


@given(st.integers(0, 1 << 52))
def test_pages_round(address: int) -> None:
    down, up = layout.page_down(address), layout.page_up(address)
    assert down % 4096 == up % 4096 == 0
    assert address - 4096 < down <= address <= up < address + 4096
