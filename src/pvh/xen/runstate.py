"""vcpu_runstate_info: what a vCPU's time went by with (xen/common/sched/core.c, xen/common/domain.c)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pvh.abi import vcpu_op as abi
from pvh.hints import TYPE_CHECKING, Literal
from pvh.record import dataclass

if TYPE_CHECKING:
    from pvh.build.ram import GuestRam

Kind = Literal["linear", "physical"]


def pack(values: tuple[int, ...], *, wide: bool) -> bytes:
    """Lay out state, entry time and times for a caller of that width."""
    return struct.pack(abi.RUNSTATE_64 if wide else abi.RUNSTATE_32, *values)


@dataclass(frozen=True, slots=True)
class Area:
    """Where a guest wants the info kept: pieces (guest-physical address, bytes) in order, and the layout's width."""

    pieces: tuple[tuple[int, int], ...]
    wide: bool


def store(ram: GuestRam, pieces: tuple[tuple[int, int], ...], data: bytes) -> None:
    """Write data over pieces of guest memory; what is no memory stays unwritten, and nobody is told."""
    done = 0
    for gpa, size in pieces:
        ram.write(gpa, data[done : done + size])
        done += size


class Runstate:
    """The info of one vCPU. Times in ns of the domain's clock.

    What the machine does not tell is not in it: while a vCPU is up and not blocked it counts as running, also when the
    host ran something else. RUNNABLE is for a machine that knows better.

    marks  the guest wants to see in linear areas, too, that they are being written (vm_assist type 5)
    """

    KEPT = ("state", "_entry", "_times", "_areas", "marks")

    def __init__(self, ram: GuestRam, state: int) -> None:
        self._ram = ram
        self.state = state
        self._entry = 0
        self._times = [0, 0, 0, 0]
        self._areas: dict[Kind, Area] = {}
        self.marks = False

    def change(self, state: int, now: int) -> None:
        """Enter a state, and write the areas the guest registered."""
        if state == self.state:
            return
        self._times[self.state] += now - self._entry
        self.state, self._entry = state, now
        for kind, area in self._areas.items():
            self._write(kind, area)

    def read(self, now: int) -> tuple[int, ...]:
        """Return state, entry time and times up to now. Areas have the times as they were at the entry time."""
        times = list(self._times)
        times[self.state] += now - self._entry
        return (self.state, self._entry, *times)

    def keep(self, kind: Kind, area: Area, *, write: bool) -> None:
        """Keep an area from now on in place of one of its kind. write: also fill it at once."""
        self._areas[kind] = area
        if write:
            self._write(kind, area)

    def _write(self, kind: Kind, area: Area) -> None:
        """Write an area, with the entry time's top bit set while the rest changes: a physical one, or all if marks."""
        data = pack((self.state, self._entry, *self._times), wide=area.wide)
        if kind == "linear" and not self.marks:
            store(self._ram, area.pieces, data)
            return
        at = abi.RUNSTATE_ENTRY_64 if area.wide else abi.RUNSTATE_ENTRY_32
        marked = struct.pack("<Q", self._entry | abi.RUNSTATE_UPDATE)
        entry = tuple(_part(area.pieces, at, 8))
        store(self._ram, entry, marked)
        store(self._ram, area.pieces, data[:at] + marked + data[at + 8 :])
        store(self._ram, entry, data[at : at + 8])


def _part(pieces: tuple[tuple[int, int], ...], offset: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the pieces of guest memory behind [offset, offset + size) of an area."""
    for gpa, length in pieces:
        start, end = max(offset, 0), min(offset + size, length)
        yield gpa + start, max(0, end - start)
        offset -= length
