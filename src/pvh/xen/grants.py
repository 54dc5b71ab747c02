"""The grant table of a domain, version 1: frames of entries that say which page another domain may use, and how.

xen/common/grant_table.c. Of the other domains only domain 0 exists, which grants nothing.
"""

from __future__ import annotations

import struct

from pvh.abi import grant_table as abi
from pvh.abi.memory import XENMAPIDX_GRANT_TABLE_STATUS
from pvh.hints import TYPE_CHECKING, Any
from pvh.kept import put_back
from pvh.xen import atomics
from pvh.xen.physmap import XenPage

if TYPE_CHECKING:
    from pvh.xen.physmap import Physmap


class Grants:
    """Callers hold the domain's lock."""

    KEPT = ("frames",)

    def __init__(self, physmap: Physmap) -> None:
        """Begin with one frame, as Xen does."""
        self._physmap = physmap
        self.frames = [XenPage()]

    def apply(self, state: dict[str, Any]) -> None:
        """Go on with the frames that were kept."""
        self.frames = [XenPage() for _ in state["frames"]]
        put_back(self, state)

    def frame(self, index: int) -> XenPage | None:
        """Return a frame, made with all before it when first asked for; None for one there cannot be.

        Frames of status words are of version 2.
        """
        if index & XENMAPIDX_GRANT_TABLE_STATUS or not self.grow(index + 1):
            return None
        return self.frames[index]

    def grow(self, count: int) -> bool:
        """Make frames until there are so many; False for more than there can be."""
        if count > abi.MOST_FRAMES:
            return False
        self.frames += [XenPage() for _ in range(count - len(self.frames))]
        return True

    def permit(self, ref: int, domid: int, gfn: int) -> None:
        """Grant a domain a page, as a toolstack does before the guest runs."""
        struct.pack_into(abi.ENTRY, self.frames[0].own, ref * abi.ENTRY_SIZE, abi.GTF_PERMIT_ACCESS, domid, gfn)

    def is_ref(self, ref: int) -> bool:
        """Whether there is an entry of that number."""
        return ref < len(self.frames) * abi.ENTRIES_PER_FRAME

    def read(self, ref: int) -> tuple[int, int, int]:
        """Return flags, domid and frame of an entry."""
        flags, domid, frame = struct.unpack(abi.ENTRY, self._entry(ref))
        return flags, domid, frame

    def swap(self, first: int, second: int) -> None:
        """Exchange two entries."""
        one, other = self.read(first), self.read(second)
        for ref, entry in ((first, other), (second, one)):
            self._entry(ref)[:] = struct.pack(abi.ENTRY, *entry)

    def begin(self, ref: int, domid: int, *, write: bool) -> int | None:
        """Mark an entry as in use by a domain; return the frame, or None if it does not grant that.

        The guest ends a grant by exchanging the flags when they show no use: so mark first, and look then.
        """
        self._mark(ref, write=write)
        flags, grantee, frame = self.read(ref)
        permitted = flags & abi.GTF_TYPE_MASK == abi.GTF_PERMIT_ACCESS and grantee == domid
        if permitted and not (write and flags & abi.GTF_READONLY):
            return frame
        self.end(ref, write=write)
        return None

    def end(self, ref: int, *, write: bool) -> None:
        """Take the marks of begin() away."""
        if write:
            atomics.test_and_clear_bit(self._address(ref), abi.GTF_WRITING_BIT)
        atomics.test_and_clear_bit(self._address(ref), abi.GTF_READING_BIT)

    def _mark(self, ref: int, *, write: bool) -> None:
        atomics.test_and_set_bit(self._address(ref), abi.GTF_READING_BIT)
        if write:
            atomics.test_and_set_bit(self._address(ref), abi.GTF_WRITING_BIT)

    def _entry(self, ref: int) -> memoryview:
        frame, index = divmod(ref, abi.ENTRIES_PER_FRAME)
        return self._physmap.view(self.frames[frame])[index * abi.ENTRY_SIZE : (index + 1) * abi.ENTRY_SIZE]

    def _address(self, ref: int) -> int:
        frame, index = divmod(ref, abi.ENTRIES_PER_FRAME)
        return self._physmap.host(self.frames[frame]) + index * abi.ENTRY_SIZE
