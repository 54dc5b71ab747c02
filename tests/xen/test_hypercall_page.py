"""The hypercall page (facts/xen-abi.md, 6)."""

from __future__ import annotations

import pytest

from pvh.xen.hypercall_page import hypercall_page


def intel(number: int) -> bytes:
    return b"\xb8" + number.to_bytes(4, "little") + b"\x0f\x01\xc1\xc3"


PAGE = hypercall_page(intel)


@pytest.mark.parametrize("number", [number for number in range(128) if number != 23])
def test_stub_i_is_at_32_i_and_the_rest_traps(number: int) -> None:
    assert PAGE[number * 32 : number * 32 + 32] == intel(number).ljust(32, b"\xcc")


def test_iret_has_no_stub() -> None:
    assert PAGE[23 * 32 : 24 * 32] == b"\x0f\x0b".ljust(32, b"\xcc")


def test_it_is_one_page() -> None:
    assert len(PAGE) == 4096
