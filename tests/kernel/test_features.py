"""The grammar of FEATURES, on its own. Its effect on the verdict is in the corpus."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvh.abi import features as abi
from pvh.kernel.features import names, parse_features, tokens, unknown_required, unknown_supported
from pvh.kernel.record import Features


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("a", ["a"]),
        ("a|b", ["a", "b"]),
        ("a|", ["a"]),
        ("|a", ["", "a"]),
        ("x" * 62 + "|a", ["x" * 62, "a"]),
        ("x" * 63 + "|a", ["x" * 63, "", "a"]),
        ("x" * 64 + "|a", ["x" * 63, "x", "a"]),
        ("x" * 130, ["x" * 63, "x" * 63, "x" * 4]),
    ],
)
def test_tokens(text: str, pieces: list[str]) -> None:
    """libelf-dominfo.c, elf_xen_parse_features: 63 bytes and a NUL fit its buffer."""
    assert list(tokens(text)) == pieces


@given(st.text(st.characters(min_codepoint=1, max_codepoint=255)))
def test_tokens_lose_nothing_but_bars(text: str) -> None:
    pieces = list(tokens(text))
    assert "".join(pieces) == text.replace("|", "")
    assert all(len(piece) <= abi.MAX_TOKEN and "|" not in piece for piece in pieces)


def test_what_is_unknown() -> None:
    text = "dom0|!hvm_callback_vector|new||!newer|!"
    assert parse_features(text) == Features(1 << 11 | 1 << 8, 1 << 8)
    assert unknown_required(text) == ["!newer", "!"]
    assert unknown_supported(text) == ["new"]


def test_names() -> None:
    assert names(0) == []
    assert names(1 << 15 | 1 | 1 << 31) == ["writable_page_tables", "linux_rsdp_unrestricted", "bit 31"]


def test_the_numbers_are_those_of_features_h() -> None:
    assert list(abi.NAMES) == list(range(21))
    assert [abi.NAMES[number] for number in abi.PARSED] == [
        "writable_page_tables",
        "writable_descriptor_tables",
        "auto_translated_physmap",
        "supervisor_mode_kernel",
        "pae_pgdir_above_4gb",
        "hvm_callback_vector",
        "dom0",
    ]
