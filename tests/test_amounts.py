"""Sizes and spans of time as people write them."""

from __future__ import annotations

import pytest

from pvh.amounts import parse_seconds, parse_size


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
        ("1.5G", 3 << 29),
        ("0.25 KiB", 256),
    ],
)
def test_units_are_powers_of_two(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "0x10", "5x", "5i", "5ki", "5Mbb", "5bM", "1 2", "5 M B", "\u0661M"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is no size: write 512M or 2GiB"):
        parse_size(text)


@pytest.mark.parametrize("text", ["1.5", "0.3k", "1.00001M"])
def test_a_size_is_a_whole_number_of_bytes(text: str) -> None:
    with pytest.raises(ValueError, match="is no whole number of bytes"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "span"),
    [("90", 90), ("0", 0), ("1.5", 1.5), ("500ms", 0.5), ("90 s", 90), ("2m", 120), ("1H", 3600), ("1e3", 1000)],
)
def test_spans_of_time(text: str, span: float) -> None:
    assert parse_seconds(text) == span


@pytest.mark.parametrize("text", ["", "s", "-1", "nan", "inf", "-inf", "1e10", "2k", "2min", "1 2", "m2"])
def test_what_is_no_span_of_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no span of time up to 1000000000 seconds: write 90, 500ms or 2m"):
        parse_seconds(text)
