"""What is behind each guest frame: RAM, one of Xen's own pages, or nothing any more (xen/arch/x86/mm/p2m.c).

Engines map guest RAM once and for all. So a page of Xen's that a guest maps has its contents in the memory behind that
frame, and a frame that was taken out of the map keeps memory behind it: zeroed, accounted as gone, and never asked for
by us, but not out of the guest's reach (docs/design.md).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable

from pvh.abi.x86 import PAGE_SIZE
from pvh.hints import TYPE_CHECKING
from pvh.xen import atomics

if TYPE_CHECKING:
    from pvh.build.ram import GuestRam

_FRAME_BITS = 40 - 12  # what the engines reach: 40 bits of guest-physical address
# libxl lets a domain have 1 MiB above its memory, for pages of special purpose (LIBXL_MAXMEM_CONSTANT).
_SLACK_PAGES = 256
_MOST_ADDED = 256  # frames that get memory for a page of Xen's: there are 65 such pages, and a few may move


class XenPage:
    """A page of Xen's. It lives with us, at `own`, until the guest maps it; then at the guest frame gfn."""

    __slots__ = ("address", "gfn", "own")
    KEPT = ("gfn", "own")

    def __init__(self) -> None:
        """Begin with zeroes, unmapped."""
        self.own, self.address = atomics.memory(PAGE_SIZE)
        self.gfn: int | None = None


class Physmap:
    """The frames of one domain. Callers hold the domain's lock."""

    KEPT = ("pages", "_gone", "_added")

    def __init__(self, ram: GuestRam, memory: int, back: Callable[[int], bool]) -> None:
        """Begin with every backed frame as RAM.

        memory  bytes of RAM the domain was given
        back    back(gpa) puts memory of one page behind a frame that has none; False where that cannot be
        """
        self.ram = ram
        self.maximum = memory // PAGE_SIZE + _SLACK_PAGES
        self._back = back
        self._starts = [gpa // PAGE_SIZE for gpa, _ in ram.given]
        self._gone = [bytearray() for _ in ram.given]  # a bit for each frame, made when the first frame goes
        self._sizes = [size // PAGE_SIZE for _, size in ram.given]
        self.pages = sum(self._sizes)  # that the domain owns, mapped or not
        self._special: dict[int, XenPage] = {}
        self._added = 0

    @property
    def last(self) -> int:
        """The highest frame that something is behind: XENMEM_maximum_gpfn."""
        return max(self._starts[-1] + self._sizes[-1] - 1, *self._special, 0)

    def place(self, pages: Iterable[XenPage]) -> None:
        """Have Xen's pages where their gfn says that they are."""
        self._special = {page.gfn: page for page in pages if page.gfn is not None}

    def view(self, page: XenPage) -> memoryview:
        """Return a page of Xen's, wherever it is now: writable, and valid until it moves."""
        view = page.own if page.gfn is None else self.ram.view(page.gfn * PAGE_SIZE, PAGE_SIZE)
        assert view is not None
        return view

    def host(self, page: XenPage) -> int:
        """Return the host address of a page of Xen's, for atomic operations: all else goes by view."""
        if page.gfn is None:
            return page.address
        host = self.ram.host_address(page.gfn * PAGE_SIZE, PAGE_SIZE)
        assert host is not None
        return host

    def is_ram(self, gfn: int) -> bool:
        """Whether the domain's own memory is behind a frame."""
        place = self._place(gfn)
        return place is not None and not self._is_gone(*place)

    def is_mapped(self, gfn: int) -> bool:
        """Whether anything is behind a frame."""
        return gfn in self._special or self.is_ram(gfn)

    def map(self, page: XenPage, gfn: int) -> bool:
        """Put a page of Xen's at a guest frame, moving it there; what was behind that frame is freed.

        False when there can be no memory at that frame.
        """
        if page.gfn == gfn:
            return True
        if gfn >> _FRAME_BITS:
            return False
        if self.ram.view(gfn * PAGE_SIZE, PAGE_SIZE) is None and not self._add(gfn):
            return False
        self.remove(gfn, free=True)
        contents = bytes(self.view(page))
        if page.gfn is not None:
            self._clear(page.gfn)
            del self._special[page.gfn]
        self.ram.write(gfn * PAGE_SIZE, contents)
        page.gfn = gfn
        self._special[gfn] = page
        return True

    def remove(self, gfn: int, *, free: bool) -> bool:
        """Take a frame out of the map, and give its memory back if free. False when nothing is behind it."""
        page = self._special.pop(gfn, None)
        if page:
            page.own[:] = self.view(page)
            page.gfn = None
            self._clear(gfn)
            return True
        place = self._place(gfn)
        if place is None or self._is_gone(*place):
            return False
        self._mark(*place, gone=True)
        self.pages -= free
        self._clear(gfn)
        return True

    def allocate(self, count: int) -> bool:
        """Let the domain own more pages; False when it has as many as it may."""
        if self.pages + count > self.maximum:
            return False
        self.pages += count
        return True

    def populate(self, gfn: int, count: int) -> bool:
        """Put new pages of zeroes behind frames. False when the domain may not have more, or there is no room for RAM.

        A page that was behind one of them stays the domain's, though it cannot reach it any more.
        """
        places = [self._place(gfn + index) for index in range(count)]
        if None in places or not self.allocate(count):
            return False
        for index in range(count):
            self.remove(gfn + index, free=False)
            place = self._place(gfn + index)
            if place:
                self._mark(*place, gone=False)
            self._clear(gfn + index)
        return True

    def move(self, source: int, target: int) -> bool:
        """Move the page behind a frame to another; what was there is freed. False without RAM at both."""
        place = self._place(target)
        if not self.is_ram(source) or place is None:
            return False
        if source == target:
            return True
        contents = self.ram.read(source * PAGE_SIZE, PAGE_SIZE)
        assert contents is not None
        self.remove(source, free=False)
        self.remove(target, free=True)
        self._mark(*place, gone=False)
        return self.ram.write(target * PAGE_SIZE, contents)

    def _add(self, gfn: int) -> bool:
        """Have memory put behind a frame that is no RAM, for good; a guest can have that so many times."""
        if self._added == _MOST_ADDED or not self._back(gfn * PAGE_SIZE):
            return False
        self._added += 1
        return True

    def _place(self, gfn: int) -> tuple[int, int] | None:
        """Return the block that a frame of RAM is in, and its index there."""
        block = bisect_right(self._starts, gfn) - 1
        if block < 0 or gfn - self._starts[block] >= self._sizes[block]:
            return None
        return block, gfn - self._starts[block]

    def _is_gone(self, block: int, index: int) -> bool:
        bits = self._gone[block]
        return bool(bits and bits[index // 8] >> index % 8 & 1)

    def _mark(self, block: int, index: int, *, gone: bool) -> None:
        bits = self._gone[block] = self._gone[block] or bytearray(-(-self._sizes[block] // 8))
        bits[index // 8] = bits[index // 8] & ~(1 << index % 8) | gone << index % 8

    def _clear(self, gfn: int) -> None:
        self.ram.write(gfn * PAGE_SIZE, bytes(PAGE_SIZE))
