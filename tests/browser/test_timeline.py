"""The page of a timeline, in Chromium: no word is clipped, covered or faint, and nothing comes from outside."""

from __future__ import annotations

import pytest

from browser.conftest import Measure
from pvh.timeline.html import render_page
from timeline.example import example

pytestmark = pytest.mark.browser

WIDTHS = (360, 700, 1200)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_are_legible_at_every_width(measured: Measure, scheme: str) -> None:
    title = "pvh run /boot/" + "a-long-name-of-a-kernel" * 5
    found = measured(render_page(example(), title, "ended: " + "why " * 40), "words.js", WIDTHS, scheme)
    assert [frame["width"] for frame in found] == list(WIDTHS)
    for frame in found:
        assert frame["wrong"] == [], frame["width"]
        assert frame["outside"] == []
        assert not frame["scrolls"], frame["width"]
        assert frame["words"] > 60
        assert frame["paper"] == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(18, 22, 29)")


def test_the_measurement_finds_what_is_wrong(measured: Measure) -> None:
    page = render_page(example(), "title", "end")
    bad = page.replace(
        "</main>", '<p style="margin-left:-20px">clipped</p><p style="margin-bottom:-2em">one</p><p>two</p></main>'
    )
    assert {"clipped", "overlap"} <= {what for what, *_ in measured(bad, "words.js", (360,))[0]["wrong"]}
