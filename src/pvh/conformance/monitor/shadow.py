"""Shadow memory: which bits of guest-physical memory have no defined value, and where each byte's lack comes from.

A Value is (mask, origin): the undefined bits, and the number of their origin (origins.py). Where values of several
origins meet, one is kept. Pages are made when they are first touched; a page that is all defined is None.
"""

from __future__ import annotations

from pvh.hints import TYPE_CHECKING
from pvh.record import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable

Value = tuple[int, int]
DEFINED: Value = (0, 0)

_PAGE = 4096

Page = tuple[bytearray, bytearray]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Guest-physical bytes [start, end) that are defined (origin 0), undefined, or a null pointer (defined is True)."""

    start: int
    end: int
    origin: int = 0
    defined: bool = False


def join(*values: Value) -> Value:
    """Return what an operation gives that uses all its operands for each bit: the mask here is only 0 or not."""
    for value in values:
        if value[0]:
            return value
    return DEFINED


class ShadowMemory:
    """Bytes outside every stretch are defined; of stretches that overlap the later one counts."""

    def __init__(self, stretches: Iterable[Stretch]) -> None:
        self._stretches = tuple(stretches)
        self._pages: dict[int, Page | None] = {}

    def _page(self, number: int) -> Page | None:
        try:
            return self._pages[number]
        except KeyError:
            page = self._pages[number] = self._make(number)
            return page

    def _make(self, number: int) -> Page | None:
        masks, origins = bytearray(_PAGE), bytearray(_PAGE)
        base = number * _PAGE
        for stretch in self._stretches:
            first, last = max(stretch.start - base, 0), min(stretch.end - base, _PAGE)
            if first < last:
                undefined = stretch.origin and not stretch.defined
                masks[first:last] = (b"\xff" if undefined else b"\0") * (last - first)
                origins[first:last] = bytes((stretch.origin,)) * (last - first)
        return None if not any(origins) else (masks, origins)

    def load(self, gpa: int, size: int) -> Value:
        """Return the value of bytes inside one page."""
        page = self._page(gpa >> 12)
        if page is None:
            return DEFINED
        masks, origins = page
        at = gpa & 0xFFF
        found = origins[at : at + size]
        if not any(found):
            return DEFINED
        mask = int.from_bytes(masks[at : at + size], "little")
        if mask:
            first = ((mask & -mask).bit_length() - 1) >> 3
            return mask, found[first]
        return 0, found[0]

    def store(self, gpa: int, size: int, value: Value) -> None:
        """Set the value of bytes inside one page."""
        page = self._page(gpa >> 12)
        mask, origin = value
        if page is None:
            if not origin:
                return
            page = self._pages[gpa >> 12] = bytearray(_PAGE), bytearray(_PAGE)
        masks, origins = page
        at = gpa & 0xFFF
        masks[at : at + size] = part = mask.to_bytes(size, "little")
        named = bytes((origin,))
        # A byte that is defined among others has no origin; in a null pointer each has.
        origins[at : at + size] = part.translate(b"\0" + named * 255) if mask else named * size

    def define(self, gpa: int, size: int) -> None:
        """Have bytes defined, on any number of pages."""
        end = gpa + size
        while gpa < end:
            count = min(end - gpa, _PAGE - (gpa & 0xFFF))
            if count == _PAGE:
                self._pages[gpa >> 12] = None
            else:
                self.store(gpa, count, DEFINED)
            gpa += count

    def copy(self, source: int, target: int, size: int) -> None:
        """Have bytes of one page be as those of another, inside one page each."""
        page = self._page(source >> 12)
        if page is None:
            self.define(target, size)
            return
        masks, origins = (bytes(part[source & 0xFFF :][:size]) for part in page)
        if not any(origins):
            self.define(target, size)
            return
        into = self._page(target >> 12)
        if into is None:
            into = self._pages[target >> 12] = bytearray(_PAGE), bytearray(_PAGE)
        at = target & 0xFFF
        into[0][at : at + size], into[1][at : at + size] = masks, origins
