"""Text is cut and broken to fit, and nothing of it is lost in breaking."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pvh.plan.lettering import shorten, text_width, wrap_lines

WORDS = st.text(alphabet="aMil 1-漢", max_size=60)


@given(WORDS, st.integers(20, 200))
def test_lines_fit_and_hold_every_letter_in_order(text: str, room: int) -> None:
    lines = wrap_lines(text, 10, room)
    assert all(text_width(line, 10) <= room for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(line.strip() == line != "" for line in lines)


@given(WORDS, st.integers(20, 200))
def test_a_shortened_text_fits_and_is_as_long_as_it_can_be(text: str, room: int) -> None:
    short = shorten(text, 10, room)
    assert text_width(short, 10) <= room
    if short != text:
        kept = short.removesuffix("…")
        assert text.startswith(kept)
        assert text_width(text[: len(kept) + 1] + "…", 10) > room


def test_a_line_takes_at_least_a_letter() -> None:
    assert wrap_lines("漢漢", 10, 1) == ["漢", "漢"]
