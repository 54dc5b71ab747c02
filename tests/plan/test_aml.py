"""The AML encoder against the grammar of the ACPI specification 6.5, section 20.2."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pvh.plan import aml


def package_length(data: bytes) -> tuple[int, int]:
    """Decode a PkgLength (20.2.4): its value and how many bytes it takes."""
    more = data[0] >> 6
    if not more:
        return data[0] & 63, 1
    assert not data[0] & 0x30, "bits 5-4 are reserved when more bytes follow"
    return data[0] & 15 | int.from_bytes(data[1 : 1 + more], "little") << 4, 1 + more


@given(st.sampled_from([0, 1, 61, 62, 63, 64, 4092, 4093, 4094, 4095, 4096, 0xFFFFB, 0xFFFFC, 0xFFFFD, 0x100000]))
def test_a_package_length_counts_itself_and_the_body(size: int) -> None:
    encoded = aml.package(b"\x10", bytes(size))
    length, taken = package_length(encoded[1:])
    assert length == len(encoded) - 1
    assert len(encoded) == 1 + taken + size
    assert taken == 1 or length > 63


@given(st.integers(0, (1 << 64) - 1))
def test_an_integer_takes_the_shortest_prefix_that_holds_it(value: int) -> None:
    encoded = aml.integer(value)
    if value <= 1:
        assert encoded == bytes([value])
    else:
        size = {0x0A: 1, 0x0B: 2, 0x0C: 4, 0x0E: 8}[encoded[0]]
        assert int.from_bytes(encoded[1:], "little") == value
        assert len(encoded) == 1 + size
        assert size == 1 or value >= 1 << 4 * size


def test_name_strings_have_root_and_multi_name_prefixes() -> None:
    assert aml.name_string("MAT") == b"MAT_"
    assert aml.name_string("\\_SB.MAPA") == b"\\\x2e_SB_MAPA"
    assert aml.name_string("A.B.C") == b"\x2f\x03A___B___C___"
