"""build: from a plan to guest RAM and an entry state. It copies and maps what the plan says, and decides no address."""

from __future__ import annotations

import os

from pvh.abi.x86 import PAGE_SIZE
from pvh.build.entry import entry_state
from pvh.build.image import Image
from pvh.build.ram import GuestRam
from pvh.build.start_info import start_info_pieces
from pvh.errors import EngineError, UsageError
from pvh.hints import TYPE_CHECKING
from pvh.host import read_into
from pvh.kernel.source import FileSource, identify
from pvh.plan.record import FileBytes, LiteralBytes, Plan, Range

if TYPE_CHECKING:
    from collections.abc import Iterator

# Reading this many bytes from the page cache costs 0.2 ms; a mapping 3 us, faults of 2 us for each 64 KiB touched, and,
# in most processes, which map once, 0.5 ms for the SIGBUS handler and its module.
MAP_FROM = 1 << 20
# Up to here no look at the host's free memory is taken: the look costs more than it tells.
_CHECK_FROM = 64 << 20


def build(plan: Plan) -> Image:
    """Return guest RAM filled as the plan says, and the entry state.

    File bytes are mapped privately where whole pages of the file meet whole pages of the guest, unless the plan's
    options say copy or other users may write the file; elsewhere they are read in place. Fresh RAM is zero, so .bss
    and whatever else the plan leaves empty costs nothing.

    Raises UsageError when a file changed since it was planned or cannot be read, EngineError when the host has too
    little memory.

    >>> plan = pvh.plan(pvh.read_kernel(pvh.demo_path()), pvh.BootOptions())
    >>> with pvh.boot(pvh.build(plan)) as guest:
    ...     guest.wait(timeout=10).ending
    'poweroff'
    """
    files = _files(plan)
    for source in files:
        if source.changed():
            raise UsageError("it changed since the kernel was planned", path=source.path, hint="run it again")
    ram = GuestRam(plan.backed)
    try:
        fill = _Fill(plan, ram, files)
        if plan.options.variation.poison is not None or plan.options.variation.null:
            _litter(plan, ram)
        for piece in plan.ranges:
            fill.place(piece)
        for paddr, data in start_info_pieces(plan):
            stored = ram.write(paddr, data)
            assert stored, "the plan puts start_info into RAM"
    except BaseException:
        ram.close()
        raise
    return Image(plan, ram, entry_state(plan), files, fill.mapped, tuple(fill.notes.values()))


def _litter(plan: Plan, ram: GuestRam) -> None:
    """Have something in RAM that nothing is loaded to. What a range leaves empty is zero all the same."""
    variation = plan.options.variation
    if variation.poison is not None:
        ram.litter(variation.poison)
    ram.write(0, bytes([0xFF * variation.null]) * PAGE_SIZE)
    for piece in plan.ranges:
        if piece.kind != "hole":
            count = _given(piece)
            ram.clear(piece.start + count, piece.size - count)


def _given(piece: Range) -> int:
    """Return how many bytes of a range its content has; the rest is zero."""
    content = piece.content
    if isinstance(content, FileBytes):
        return max(0, min(content.count, piece.size, content.source.size - content.offset))
    return len(content.data) if content else 0


def changed_files(image: Image) -> tuple[str, ...]:
    """Return a clause for each file that was rewritten or cut since it was opened, and one if pages were lost.

    By size and modification time: a rewrite of equal size within the file system's clock tick goes unseen. Call it
    before the image's RAM is closed.
    """
    findings = []
    for source in image.files:
        now, then = identify(source.fd), source.identity
        if now.size < then.size:
            findings.append(f"{source.path} was cut from {then.size} to {now.size} bytes")
        elif now != then:
            findings.append(f"{source.path} was rewritten")
    if lost := image.ram.lost_pages:
        findings.append(f"{lost} pages that were cut turned to zeroes in the guest")
    return tuple(findings)


def _contents(plan: Plan) -> Iterator[FileBytes]:
    return (piece.content for piece in plan.ranges if isinstance(piece.content, FileBytes))


def _files(plan: Plan) -> tuple[FileSource, ...]:
    """Return each open file that the plan takes bytes from, once."""
    sources = (content.source for content in _contents(plan))
    return tuple({source.fd: source for source in sources if isinstance(source, FileSource)}.values())


class _Fill:
    """Fills one guest's RAM."""

    def __init__(self, plan: Plan, ram: GuestRam, files: tuple[FileSource, ...]) -> None:
        self._ram = ram
        self.mapped = 0
        self.notes: dict[int, str] = {}  # by file descriptor
        self._may_map = set() if plan.options.copy else {source.fd for source in files if self._trusted(source)}
        self._copied = 0
        self._free = None if sum(content.count for content in _contents(plan)) > _CHECK_FROM else 1 << 64

    def _trusted(self, source: FileSource) -> bool:
        """Tell whether nobody but us and root can change the file under the guest."""
        stat = os.fstat(source.fd)
        if not hasattr(os, "geteuid") or (stat.st_uid in (0, os.geteuid()) and not stat.st_mode & 0o022):
            return True
        if source.size >= MAP_FROM:
            self.notes[source.fd] = f"{source.path}: read, not mapped, as other users may write it"
        return False

    def place(self, piece: Range) -> None:
        """Put one range's content into RAM."""
        content = piece.content
        if isinstance(content, LiteralBytes):
            self._view(piece.start, len(content.data))[:] = content.data
        elif content:
            count = _given(piece)
            first, last = self._map(piece.start, content, count)
            self._read(piece.start, content, 0, first - piece.start)
            self._read(piece.start, content, last - piece.start, count)

    def _map(self, gpa: int, content: FileBytes, count: int) -> tuple[int, int]:
        """Map what whole pages there are in count bytes for gpa; return where they start and end (equal: nothing)."""
        source = content.source
        nothing = gpa, gpa
        if not isinstance(source, FileSource) or source.fd not in self._may_map or (content.offset - gpa) % PAGE_SIZE:
            return nothing
        first = -(-gpa // PAGE_SIZE) * PAGE_SIZE
        last = (gpa + count) // PAGE_SIZE * PAGE_SIZE
        if last - first < MAP_FROM:
            return nothing
        if not self._ram.map_file(first, last - first, source.fd, content.offset + first - gpa):
            self.notes[source.fd] = f"{source.path}: read, not mapped, as this host cannot map it and survive its cut"
            return nothing
        self.mapped += last - first
        return first, last

    def _read(self, gpa: int, content: FileBytes, start: int, end: int) -> None:
        """Read bytes [start, end) of a content whose first byte belongs at gpa."""
        if start >= end:
            return
        self._count(end - start)
        view = self._view(gpa + start, end - start)
        source = content.source
        if isinstance(source, FileSource):
            _read_into(source, content.offset + start, view)
        else:
            data = source.read(content.offset + start, end - start)
            view[: len(data)] = data

    def _count(self, size: int) -> None:
        """Raise EngineError when the host has no memory left for so many more copied bytes."""
        if self._free is None:
            self._free = _available_memory()
        self._copied += size
        if self._copied > self._free:
            raise EngineError(
                "the host has too little memory for the kernel and its modules",
                found=f"{self._free >> 20} MiB available",
                hint="free some, or let the files be mapped: uncompressed, owned by you, without --copy",
            )

    def _view(self, gpa: int, size: int) -> memoryview:
        view = self._ram.view(gpa, size)
        assert view is not None, "the plan puts contents into RAM"
        return view


def _read_into(source: FileSource, offset: int, view: memoryview) -> None:
    """Read a file into RAM in place. What a file cut meanwhile no longer has stays zero; changed_files tells."""
    try:
        read_into(source.fd, view, offset)
    except OSError as error:
        raise UsageError(f"cannot read it: {(error.strerror or '').lower()}", path=source.path, offset=offset) from None


def _available_memory() -> int:
    """Return bytes the host can hand out without swapping (MemAvailable of proc(5)); no limit where it does not say."""
    try:
        with open("/proc/meminfo", "rb") as stream:
            for line in stream:
                if line.startswith(b"MemAvailable:"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    return 1 << 64
