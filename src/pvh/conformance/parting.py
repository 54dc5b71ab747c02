"""Where a boot that fails parts from the one that does not: which branch, what decided it, and what was read there.

By control flow, so that structures at other addresses are no difference. What is found is where the run last left the
ways that the other run took, and not why: a kernel may read a value here and act on it much later.
"""

from __future__ import annotations

from time import monotonic

from pvh.conformance.boot import Limits, boot
from pvh.conformance.finding import Instruction, Parting, Read
from pvh.conformance.monitor.decode import Mem, Op, Reg
from pvh.conformance.monitor.origins import STATUS_FLAGS
from pvh.conformance.profiles import applied
from pvh.conformance.ways import Departure, Departures, Edge, Eye, Look, Seen, WatchedWays, Ways
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.conformance.boot import Boot
    from pvh.conformance.checker import Task
    from pvh.conformance.disturbed import Deviation

_MOST_BLOCKS = 16_000_000  # of a run that is followed; Debian's kernels have 12 million before they speak
_MOST_OF_ALL = 24_000_000  # of all such runs, before another boot is compared: some 20 s
_SECONDS = 10.0, 90.0  # of the host, for all of them, at least and at most: a last resort
_MOST_OTHERS = 4
_GIVE = {"cpuid": "CPUID", "rdmsr": "RDMSR", "rdtsc": "RDTSC", "vmcall": "a hypercall", "vmmcall": "a hypercall"}


class Partings:
    """Compares failing boots of one kernel with the one that libxenguest would make."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._spent = 0
        self._until: float | None = None
        self._known: set[Edge] | None = None
        self._length = 0

    def of(self, deviations: tuple[Deviation, ...]) -> Parting | None:
        """Return where a boot with these deviations parts; None where nothing can be told."""
        if self._known is None:
            ways = Ways()
            made = self._run((), ways, _MOST_BLOCKS)
            self._known = ways.edges if made.reached else set()
            self._length = ways.count
        if not self._known or self._spent > _MOST_OF_ALL or self._left() <= 0:
            return None
        follow = Departures(self._known)
        limit = min(2 * self._length + 100_000, _MOST_BLOCKS)
        made = self._run(deviations, follow, limit)
        broke = made.broke and not follow.away  # where the other run went on
        gone = follow.ended() if broke else follow.last
        if made.reached or gone is None:
            return None
        look = Look(gone.near, gone.count)
        self._run(deviations, look, limit)
        return self._told(gone, look, broke=broke)

    def _run(self, deviations: tuple[Deviation, ...], eye: Eye, blocks: int) -> Boot:
        task = self._task
        limits = Limits(max(self._left(), 0.1), blocks)
        made = boot(task.kernel, applied(task.options, deviations), WatchedWays(eye), task.way, limits)
        self._spent += eye.count
        if eye.failure:
            raise eye.failure
        return made

    def _left(self) -> float:
        """Return the seconds left for this run and all others."""
        now = monotonic()
        self._until = self._until or now + min(max(self._task.limits.seconds, _SECONDS[0]), _SECONDS[1])
        return self._until - now

    def _told(self, gone: Departure, look: Look, *, broke: bool) -> Parting | None:
        """Put what was seen of a parting into words."""
        if not look.seen or look.reached != gone.to:  # two runs of one image that are not the same
            return None
        seen = tuple(look.seen)
        branch = seen[-1]
        decider = len(seen) - 1 if broke else _decider(seen)
        source = _source(seen, decider)
        asked = (seen[decider], *source)
        elsewhere = Look(tuple((look.home(one.op.address), len(one.op.code)) for one in asked))
        self._run((), elsewhere, _MOST_BLOCKS)
        reads = tuple(read for one in asked for read in _reads(one, look, elsewhere, loads=one in source))
        at, where = (_instruction(one.op, look) for one in (seen[decider], branch))
        return Parting(at, where, reads, fatal=broke)


def _decider(seen: tuple[Seen, ...]) -> int:
    """Return which instruction decided where the last goes: the one that set the flags it tests, or itself."""
    tested = seen[-1].op.tests & STATUS_FLAGS
    for index in range(len(seen) - 2, -1, -1) if tested else ():
        if seen[index].op.sets & tested:
            return index
    return len(seen) - 1


def _source(seen: tuple[Seen, ...], decider: int) -> tuple[Seen, ...]:
    """Return the instruction that loaded what the decider has in a register: none, or one, if it is among these."""
    wanted = {reg.index for one in seen[decider].reads if isinstance(reg := one.what, Reg)}
    if any(isinstance(one.what, Mem) for one in seen[decider].reads):
        return ()
    for one in reversed(seen[:decider]):
        written = {reg.index for reg in one.op.writes if isinstance(reg, Reg)}
        if one.op.name in _GIVE:
            written |= {0}
        if not written & wanted:
            continue
        if one.op.name in _GIVE or any(isinstance(operand.what, Mem) for operand in one.reads):
            return (one,)
        wanted = wanted - written | {reg.index for operand in one.reads if isinstance(reg := operand.what, Reg)}
    return ()


def _reads(one: Seen, look: Look, elsewhere: Look, *, loads: bool) -> list[Read]:
    """Return what an instruction read, and what it read in the boot that does not fail; loads: memory alone."""
    there = [other for other in elsewhere.seen if other.op.address == look.home(one.op.address)]
    found: list[Read] = []
    by = _instruction(one.op, look)
    if one.op.name in _GIVE:
        return [Read(f"what {_GIVE[one.op.name]} gives", by)]
    for index, operand in enumerate(one.reads):
        if (loads and isinstance(operand.what, Reg)) or operand in one.reads[:index]:
            continue
        others = dict.fromkeys(other.reads[index].value for other in there if len(other.reads) > index)
        kept = tuple(others)[:_MOST_OTHERS]
        if isinstance(operand.what, Reg):
            place = str(operand.what)
        elif operand.gpa is None:
            place = f"linear address {operand.linear:#x}, where nothing is mapped"
        else:
            place = look.places.get(operand.gpa, "")
        found.append(Read(place, by, operand.value, operand.gpa, kept, more=len(others) > len(kept)))
    return found


def _instruction(op: Op, look: Look) -> Instruction:
    return Instruction(op.address, look.symbols.get(op.address, ""), op.code, op.text)
