"""Kernel records made by hand: plans need no file behind them."""

from __future__ import annotations

from dataclasses import dataclass

from pvh.abi import elfnote
from pvh.kernel.record import Features, Kernel, Note, Segment

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Sized:
    """A source that has a size and no bytes: planning reads none."""

    path: str
    size: int

    def read(self, offset: int, count: int) -> bytes:
        raise AssertionError(f"planning read {count} bytes at {offset:#x} of {self.path}")


def note(number: int, value: int | str) -> Note:
    """Return a Xen note with a decoded value."""
    return Note("Xen", number, elfnote.KINDS[number][0], b"", value, 0, "segment 0")


def kernel(
    *segments: tuple[int, int],
    entry: int | None = None,
    notes: tuple[Note, ...] = (),
    supported: int = 0,
    path: str = "vmlinux",
) -> Kernel:
    """Return a kernel of segments (paddr, memsz), in the file's order, each with three quarters of it in the file."""
    made = tuple(
        Segment(index, 1, 7, 0x1000 * (index + 1), paddr, paddr, size * 3 // 4, size, 0x1000)
        for index, (paddr, size) in enumerate(segments)
    )
    start = min(segment.paddr for segment in made)
    return Kernel(
        path=path,
        source=Sized(path, 1 << 40),
        layers=(),
        bits=64,
        machine=62,
        e_entry=0,
        segments=made,
        notes=notes,
        entry=start if entry is None else entry,
        start=start,
        end=max(segment.end for segment in made),
        features=Features(supported=supported),
    )


def debian() -> Kernel:
    """Return Debian's linux-image-6.1.0-56-cloud-amd64 as read_kernel reads it (readelf -l, -n), without its bytes."""
    headers = (
        (5, 0x200000, 0x1000000, 0x1826634),
        (6, 0x1C00000, 0x2A00000, 0x61A000),
        (6, 0x2400000, 0x301A000, 0x34000),
        (7, 0x244E000, 0x304E000, 0xDB2000),
    )
    return Kernel(
        path="/boot/vmlinuz-6.1.0-56-cloud-amd64",
        source=Sized("/boot/vmlinuz-6.1.0-56-cloud-amd64", 0x3200000),
        layers=(),
        bits=64,
        machine=62,
        e_entry=0x1000000,
        segments=tuple(
            Segment(index, 1, flags, offset, 0xFFFFFFFF80000000 + paddr, paddr, size, size, 0x200000)
            for index, (flags, offset, paddr, size) in enumerate(headers)
        ),
        notes=(note(elfnote.GUEST_OS, "linux"), note(elfnote.MOD_START_PFN, 1), note(elfnote.PHYS32_ENTRY, 0x1000850)),
        entry=0x1000850,
        start=0x1000000,
        end=0x3E00000,
        features=Features(supported=0x8801),
    )
