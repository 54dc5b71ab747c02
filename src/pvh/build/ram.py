"""Guest RAM: lazily populated host memory behind guest-physical ranges."""

from __future__ import annotations

import os
from bisect import bisect_right
from functools import lru_cache

from pvh.abi.x86 import PAGE_SIZE
from pvh.build.host_memory import HOST, Area
from pvh.errors import EngineError
from pvh.hints import TYPE_CHECKING
from pvh.host import anonymous_file
from pvh.record import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvh.build.frozen import Frozen
    from pvh.build.sigbus import Guard

_LITTER = 1 << 20
_MAPPINGS = 1500  # of one litter, or twice that: as many cost what another MiB of it does


@lru_cache(maxsize=4)
def _litter(seed: int) -> bytes:
    """Return _LITTER bytes."""
    if seed == -1:
        return b"\xff" * _LITTER
    import random  # only what varies pays for it

    return random.Random(seed).randbytes(_LITTER)  # noqa: S311 - no secret


@dataclass(frozen=True, slots=True)
class Block:
    """A run of guest-physical memory with host memory behind it: gpa, size in bytes, host virtual address, its view."""

    gpa: int
    size: int
    host: int
    view: memoryview

    @property
    def end(self) -> int:
        """First guest-physical address behind it."""
        return self.gpa + self.size


class GuestRam:
    """Private host memory behind guest-physical blocks; pages exist once they are touched.

    Addresses are guest physical. block() is the one place where a range is checked, and all others ask it: they take
    what a guest may have made up, and a range that is not wholly inside one block gives None or False, never an
    exception. Whoever goes past it all the same meets inaccessible pages on both sides of each block.

    watch  is told (gpa, size) of what somebody beside the guest may be about to write: by view() and what is made of
           it, and by host_address()
    """

    def __init__(self, blocks: tuple[tuple[int, int], ...]) -> None:
        """Back each (gpa, size), both multiples of 4 KiB, sorted and disjoint.

        Raises EngineError when the host has too little address space or memory.
        """
        self._take([])
        self.given = blocks  # without what was added since
        self._areas: list[Area] = []
        self.watch: Callable[[int, int], None] | None = None
        self._guards: list[tuple[Guard, int, int, int]] = []  # with the mapping's gpa, fd, file offset
        self._frozen: Frozen | None = None
        self._littered = False
        for gpa, size in blocks:
            try:
                self._back(gpa, size)
            except OSError as error:
                self.close()
                raise EngineError(
                    f"the host cannot give the guest {size >> 20} MiB of memory: {os.strerror(error.errno or 0)}",
                    hint="ask for less with --memory",
                ) from None

    def close(self) -> None:
        """Give the memory back. Nothing may use the blocks afterwards."""
        for guard, *_ in self._guards:
            guard.release()
        self._guards = []
        self._take([])
        for area in self._areas:
            area.release()
        self._areas = []

    def _take(self, blocks: list[Block]) -> None:
        """Have these blocks, sorted; in one assignment, as other threads look blocks up meanwhile."""
        self._table = tuple(block.gpa for block in blocks), tuple(blocks)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks, by address."""
        return self._table[1]

    def add(self, gpa: int) -> Block | None:
        """Back one more page of 4 KiB, of zeroes. None where there is memory, or the host has none to give."""
        if self.block(gpa, 1):
            return None
        try:
            return self._back(gpa, PAGE_SIZE)
        except OSError:
            return None

    def _back(self, gpa: int, size: int) -> Block:
        """Put memory of zeroes behind a range that has none; raises OSError."""
        area = HOST.reserve(gpa, size)
        block = Block(gpa, size, area.host, area.view)
        self._areas.append(area)
        self._take(sorted([*self.blocks, block], key=lambda block: block.gpa))
        return block

    def block(self, gpa: int, size: int) -> Block | None:
        """Return the block that holds all of [gpa, gpa + size)."""
        starts, blocks = self._table
        index = bisect_right(starts, gpa) - 1
        if index < 0 or size < 0:
            return None
        block = blocks[index]
        return block if gpa + size <= block.end else None

    def host_address(self, gpa: int, size: int) -> int | None:
        """Return the host virtual address of [gpa, gpa + size), or None when it is not all memory."""
        block = self.block(gpa, size)
        if self.watch and block:
            self.watch(gpa, size)
        return block.host + gpa - block.gpa if block else None

    def view(self, gpa: int, size: int) -> memoryview | None:
        """Return a writable view of [gpa, gpa + size), or None when it is not all memory."""
        block = self.block(gpa, size)
        if self.watch and block:
            self.watch(gpa, size)
        return block.view[gpa - block.gpa : gpa - block.gpa + size] if block else None

    def read(self, gpa: int, size: int) -> bytes | None:
        """Return a copy of [gpa, gpa + size), or None when it is not all memory."""
        view = self.view(gpa, size)
        return None if view is None else bytes(view)

    def write(self, gpa: int, data: bytes | memoryview) -> bool:
        """Store data at gpa; False, and nothing stored, when the range is not all memory."""
        view = self.view(gpa, len(data))
        if view is None:
            return False
        view[:] = data
        return True

    def litter(self, seed: int) -> None:
        """Fill all of RAM with bytes that nobody asked for: ones for seed -1, else what the seed gives.

        They are pages of a small file, mapped again and again, so that only those the guest touches cost anything.
        """
        self._littered = True
        total = sum(block.size for block in self.blocks)
        content = _litter(seed) * max(1, total // (_MAPPINGS * _LITTER))  # a mapping takes longer than its page does
        fd = anonymous_file("litter", content)
        try:
            for block in self.blocks:
                for at in range(0, block.size, len(content)):
                    HOST.map(block.host + at, min(len(content), block.size - at), fd, 0)
        finally:
            os.close(fd)

    def clear(self, gpa: int, size: int) -> None:
        """Make [gpa, gpa + size), which must be memory, zeroes: what is whole pages by giving them back."""
        first, last = -(-gpa // PAGE_SIZE) * PAGE_SIZE, (gpa + size) // PAGE_SIZE * PAGE_SIZE
        edges = [(gpa, size)]
        if first < last:
            host = self.host_address(first, last - first)
            assert host is not None, "the plan puts ranges into RAM"
            HOST.zero(host, last - first)
            edges = [(gpa, first - gpa), (last, gpa + size - last)]
        for start, count in edges:
            self.write(start, bytes(count))

    def map_file(self, gpa: int, size: int, fd: int, offset: int) -> bool:
        """Put a private mapping of a file over [gpa, gpa + size); all page multiples.

        Pages that are cut from the file later turn to zeroes (build/sigbus.py), also those the guest wrote: truncation
        takes private copies along. False, and nothing mapped, when the range is not memory, when the host cannot keep
        that promise, or when it cannot map this file.
        """
        from pvh.build import sigbus  # most guests map nothing

        block = self.block(gpa, size)
        guard = sigbus.guard(block.host + gpa - block.gpa, size) if block else None
        if block is None or guard is None:
            return False
        host = block.host + gpa - block.gpa
        try:
            HOST.map(host, size, fd, offset)
        except OSError:
            guard.release()
            # A file system that refuses late leaves a hole behind.
            HOST.zero(host, size)
            return False
        self._guards.append((guard, gpa, fd, offset))
        return True

    @property
    def mapped_files(self) -> tuple[tuple[int, int], ...]:
        """Where private mappings of files have data, as (gpa, size in bytes)."""
        if self._littered:
            return tuple((block.gpa, block.size) for block in self.blocks)
        rests = tuple(self._frozen.extents()) if self._frozen else ()
        return (*rests, *((gpa, guard.size) for guard, gpa, _, _ in self._guards))

    def rest_on(self, frozen: Frozen) -> None:
        """Have the contents that were frozen, sharing all pages until they are written. No vCPU runs.

        Blocks that were not there then turn to zeroes. Raises EngineError when the host refuses.
        """
        try:
            for block in self.blocks:
                HOST.forget(block.host, block.size)
            if frozen is not self._frozen or not HOST.maps:
                self._map_frozen(frozen)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise EngineError(f"the host cannot map the guest's memory anew: {reason}") from None

    def _map_frozen(self, frozen: Frozen) -> None:
        """Map the file over the blocks it holds, instead of all that was mapped there."""
        for gpa, size, offset in frozen.offsets():
            block = self.block(gpa, size)
            assert block is not None, "the blocks of the guest that was frozen"
            HOST.map(block.host, size, frozen.fd, offset)
        for guard, *_ in self._guards:
            guard.release()
        self._guards = []
        self._littered = False
        self._frozen = frozen

    @property
    def lost_pages(self) -> int:
        """Pages that were cut from a mapped file, and had turned to zeroes when they were next touched."""
        return sum(guard.lost for guard, *_ in self._guards)

    def mend(self) -> int:
        """Make every page that was cut from a mapped file a page of zeroes now; return lost_pages.

        For KVM, which meets such a page with EFAULT instead of SIGBUS: mend, and enter the guest again.
        """
        for guard, gpa, fd, offset in self._guards:
            left = -(-max(0, os.fstat(fd).st_size - offset) // PAGE_SIZE) * PAGE_SIZE
            for page in range(gpa + left, gpa + guard.size, PAGE_SIZE):
                self.read(page, 1)
        return self.lost_pages
