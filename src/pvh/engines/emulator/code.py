"""Which memory holds translated code, so that every store to it is noticed.

The library looks closely at the first store to a page after its address was translated. What follows is fast, unless
that linear page is executable: so code that is written by another address than it runs at, as when Linux patches itself
or fills a page cache, would go on as it was translated. Where there is a hook of the kind "a read of no memory", which
is never called, stores stay slow (`notdirty_write` of its cputlb.c asks for the wrong kinds). One for all addresses
makes a boot take twice as long. So there is one where there is code; the hook that hears of each block made says where,
but once for 64 KiB, so that the time it takes in Python does not matter.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_right, insort

from pvh.build.ram import Block
from pvh.engines.emulator import libunicorn as uc
from pvh.engines.emulator.native import GRANULE, ControlBlock, pointer

# Each range is looked at when a page is first stored to. More than that are joined, and what lies between is slow, too.
_MOST_RANGES = 32


class CodeMap:
    """What holds code, in granules of 64 KiB; only ever grows. Addresses are guest-physical.

    ranges  sorted: the first granule of each, and the first behind it
    """

    def __init__(self, handle: uc.Handle, blocks: tuple[Block, ...], control: ControlBlock | None) -> None:
        self._handle = handle
        self._never = uc.MemHook(lambda *_: False)
        self.ranges: list[tuple[int, int]] = []
        self._hooks: dict[tuple[int, int], int] = {}
        self._count = -(-blocks[-1].end // GRANULE)
        self._bits = (ctypes.c_uint64 * (self._count // 64 + 1))()
        self._view = memoryview(self._bits).cast("B")
        if control is None:
            handle.hook(uc.HOOK_MEM_READ_UNMAPPED, self._never)
            return
        self._told = uc.NewCodeHook(self._on_code)
        control.watch_code(self._told, ctypes.addressof(self._bits), self._count)
        handle.hook(uc.HOOK_EDGE_GENERATED, pointer(control.code_hook), user_data=control.address)

    def _on_code(self, gpa: int) -> None:
        """Take note of new code; all ones where its address is not known."""
        if gpa >> 63:
            self.cover(0, self._count * GRANULE)
        else:
            self.cover(gpa, 1)
        # By other addresses it may be known as a page where stores are fast.
        self._handle.flush_tlb()

    def cover(self, gpa: int, size: int) -> None:
        """Have every store to a range noticed that comes by an address loaded later."""
        first, behind = gpa // GRANULE, -(-(gpa + size) // GRANULE)
        at = bisect_right(self.ranges, (first, behind))
        if at and self.ranges[at - 1][1] >= first:
            at -= 1
        while at < len(self.ranges) and self.ranges[at][0] <= behind:
            low, high = self._drop(at)
            first, behind = min(first, low), max(behind, high)
        self._put(first, behind)
        if len(self.ranges) > _MOST_RANGES:
            gaps = zip(self.ranges, self.ranges[1:], strict=False)
            _, at = min((after[0] - before[1], index) for index, (before, after) in enumerate(gaps))
            (low, _), (_, high) = self._drop(at), self._drop(at)
            self._put(low, high)

    def _drop(self, at: int) -> tuple[int, int]:
        found = self.ranges.pop(at)
        self._handle.unhook(self._hooks.pop(found))
        return found

    def _put(self, first: int, behind: int) -> None:
        insort(self.ranges, (first, behind))
        low, high = first * GRANULE, behind * GRANULE - 1
        self._hooks[first, behind] = self._handle.hook(uc.HOOK_MEM_READ_UNMAPPED, self._never, within=(low, high))
        for granule in range(first, min(behind, self._count)):
            self._view[granule >> 3] |= 1 << (granule & 7)
