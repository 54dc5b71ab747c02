"""docs/vcpuop.md is what tests/vcpuop/page.py makes: the emulator runs, the other columns are committed logs."""

from __future__ import annotations

from vcpuop.page import PAGE, page


def test_the_page_is_as_made_now() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run it anew: python -m vcpuop.page, in tests/"
