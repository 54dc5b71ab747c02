"""Plans made by hand: the build must do what a plan says, whoever made it."""

from __future__ import annotations

import os

from pvh.kernel.record import Features, Kernel
from pvh.kernel.source import BytesSource, FileSource, open_source
from pvh.plan.options import BootOptions
from pvh.plan.record import Content, MemoryMapEntry, Plan, Range, StartInfo

RAM = 16 << 20
INFO = 0x8000


def kernel() -> Kernel:
    """A kernel of no bytes; the build reads ranges only."""
    return Kernel(
        path="k", source=BytesSource("k", b""), layers=(), bits=64, machine=62, e_entry=0, segments=(), notes=(),
        entry=0x100000, start=0x100000, end=0x100000, features=Features(),
    )  # fmt: skip


def plan(
    *contents: tuple[int, int, Content],
    options: BootOptions | None = None,
    backed: tuple[tuple[int, int], ...] = ((0, RAM),),
    info: StartInfo | None = None,
) -> Plan:
    """A plan of (start, size, content) ranges."""
    return Plan(
        kernel=kernel(),
        options=options or BootOptions(abi="v0"),
        ranges=tuple(Range(start, size, "kernel", "k", "", content) for start, size, content in contents),
        memory_map=(MemoryMapEntry(0, RAM, 1), MemoryMapEntry(0xFEFF8000, 0x8000, 2)),
        backed=backed,
        entry=0x100000,
        start_info=info or StartInfo(INFO, 0, 0, 0, (), 0, 0),
    )


def file_source(path: object, data: bytes | None = None, mode: int = 0o600) -> FileSource:
    """Open a file, written first if there is data."""
    name = str(path)
    if data is not None:
        with open(name, "wb") as stream:
            stream.write(data)
        os.chmod(name, mode)
    source = open_source(name)
    assert isinstance(source, FileSource)
    return source
