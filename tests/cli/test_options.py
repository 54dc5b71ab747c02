"""Sizes as people type them."""

from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from pvh.cli.options import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("65536", 65536),
        ("7b", 7),
        ("64k", 64 << 10),
        ("512M", 512 << 20),
        ("512 MiB", 512 << 20),
        (" 2GB ", 2 << 30),
        ("2gib", 2 << 30),
        ("1T", 1 << 40),
    ],
)
def test_units_are_powers_of_two(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "M", "-1", "1.5G", "0x10", "5x", "5i", "5ki", "5Mbb", "5bM", "1 2", "5 M B", "\u0661M"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is no size: write 512M or 2GiB"):
        parse_size(text)
