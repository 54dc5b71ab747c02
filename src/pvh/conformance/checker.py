"""The runner: a kernel under every profile, each failure narrowed down to what causes it."""

from __future__ import annotations

import os
import re

from pvh.conformance.boot import Boot, Limits, boot
from pvh.conformance.milestone import BAD_ENDS, HALT, Milestone, how
from pvh.conformance.narrow import narrow
from pvh.conformance.profiles import KIND, Profile, applied, profiles
from pvh.engines.select import choose
from pvh.hints import TYPE_CHECKING
from pvh.host import file_of, forget_file
from pvh.kernel.source import BytesSource, open_source
from pvh.record import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pvh.conformance.disturbed import Deviation
    from pvh.conformance.finding import Parting
    from pvh.engines.engine import Engine
    from pvh.kernel.record import Kernel
    from pvh.plan.options import BootOptions

_ORDERLY = ("poweroff", "reboot", "suspend", "exit-port")
_QUIET = 2.0  # seconds that a kernel has to end after its first line, if nobody said what to wait for
_SILENT = 5.0  # and to say it
_SILENT_BLOCKS = 100_000_000  # nor more than these: two seconds of a loop that does nothing
_BRIEF = Limits(seconds=0.4, blocks=5_000_000, exits=20_000)  # for one of which nothing is seen but bad ends
_SEEN_NOTHING = (Milestone("unbroken"),)
_LENIENT = 3.0  # and to break, where it need not boot
_MOST_CULPRITS = 8
_MAP_FROM = 1 << 20


@dataclass(frozen=True, slots=True)
class Cause:
    """The deviations that make a boot fail together, none of which can be left out, and what came of that boot.

    parting  where that boot parts from kind's, if that was looked for and found
    """

    deviations: tuple[Deviation, ...]
    boot: Boot
    parting: Parting | None = None

    @property
    def clause(self) -> str:
        """Id of the clause that is broken.

        Of several deviations that only fail together the last is what the profile is there for; something in RAM tells
        least.
        """
        telling = [one.clause for one in self.deviations if one.clause != "memory.poison"]
        return telling[-1] if telling else self.deviations[-1].clause


@dataclass(frozen=True, slots=True)
class Attempt:
    """A profile tried: the boot with all its deviations, and what it fails of, if it does.

    explained  with none of the causes it boots, or there are none
    """

    profile: Profile
    boot: Boot
    passed: bool
    causes: tuple[Cause, ...] = ()
    explained: bool = True


@dataclass(frozen=True, slots=True)
class Task:
    """What the trials of one check have in common."""

    kernel: Kernel
    options: BootOptions
    way: tuple[Milestone, ...]
    limits: Limits


def trial(task: Task, engine: Engine) -> tuple[Task, Boot]:
    """Boot as libxenguest does, and settle what tells that a kernel booted, if nobody said, and how long it has."""
    asked = task.way
    limits = task.limits
    if not asked:
        limits = replace(limits, seconds=min(limits.seconds, _SILENT), blocks=_SILENT_BLOCKS, quiet=_QUIET)
    # Whoever says nothing means an end, if there is one.
    first = boot(task.kernel, task.options, engine, asked or (Milestone("ends", ""),), limits)
    if asked:
        return replace(task, limits=_limits(first)), first
    way = _way(first)
    first = replace(first, reached=bool(way), missing="")
    return replace(task, way=way, limits=_BRIEF if way == _SEEN_NOTHING else _limits(first)), first


def _limits(first: Boot) -> Limits:
    """Return what later boots have. Where work can be counted, time is a last resort: this host may be busy."""
    blocks = None if first.blocks is None else 4 * first.blocks + 2_000_000
    return Limits(max(20 * first.seconds, 5.0 if blocks is None else 10.0), blocks, 4 * first.exits + 50_000)


def _way(first: Boot) -> tuple[Milestone, ...]:
    """Return what a kernel does that boots, from what it did once: it says its first line, and ends as it did.

    One that says nothing and does not end calls what it called last, or cannot be told from one that is dead. One that
    comes to a bad end, or ends with a status of failure, does not boot.
    """
    if first.ending in BAD_ENDS or (first.ending == "exit-port" and first.status):
        return ()
    lines = (line.strip() for line in first.console.decode(errors="replace").splitlines())
    line = next((line for line in lines if line), "")
    way = [Milestone("console", _pattern(line))] if line else []
    end = how(first.ending, first.status, halted=first.halted)
    if first.ending in _ORDERLY and (end != HALT or way or first.calls):
        way.append(Milestone("ends", end))
    elif not line and first.calls:
        way.append(Milestone("hypercall", first.calls[-1]))
    return tuple(way) or _SEEN_NOTHING


def _pattern(line: str) -> str:
    """Return an expression for a line whose words with digits may be others: addresses, sizes, times."""
    words = (r"\S+" if re.search(r"\d", word) else re.escape(word) for word in line[:80].split())
    return r"\s+".join(words)


def attempt(task: Task, profile: Profile, engine: Engine) -> Attempt:
    """Try a profile, and find all single causes of its failure, one after the other."""
    limits = task.limits
    if profile.lenient:  # it need not get anywhere
        blocks = None if limits.blocks is None else limits.blocks // 2
        limits = replace(limits, blocks=blocks, seconds=min(limits.seconds, _LENIENT))
    cache: dict[tuple[Deviation, ...], Boot] = {}

    def run(deviations: tuple[Deviation, ...]) -> Boot:
        if deviations not in cache:
            cache[deviations] = boot(task.kernel, applied(task.options, deviations), engine, task.way, limits)
        return cache[deviations]

    def fails(deviations: tuple[Deviation, ...]) -> bool:
        return not _passed(profile, run(deviations))

    whole = run(profile.deviations)
    causes: list[Cause] = []
    left = profile.deviations
    while left and fails(left) and len(causes) < _MOST_CULPRITS:
        found = narrow(left, fails)
        causes.append(Cause(found, run(found)))
        left = tuple(deviation for deviation in left if deviation not in found)
    return Attempt(profile, whole, _passed(profile, whole), tuple(causes), not (left and fails(left)))


def _passed(profile: Profile, made: Boot) -> bool:
    return made.reached or (profile.lenient and made.ending not in ("triple-fault", "engine"))


def attempts(
    task: Task, kind: Boot, seed: int, jobs: int, engine: Engine, only: Callable[[str], bool]
) -> Iterator[tuple[Attempt, int]]:
    """Yield an attempt for each profile that `only` takes, kind's first, and how many there will be.

    With jobs, processes work ahead. A kernel that does not boot as libxenguest has it is tried no further.
    """
    todo = [profile for profile in profiles(task.kernel, task.options, seed)[1:] if only(profile.name)]
    count = 1 + len(todo) * kind.reached
    yield Attempt(KIND, kind, kind.reached), count
    if not kind.reached:
        return
    if jobs <= 1 or not hasattr(os, "fork"):
        yield from ((attempt(task, profile, engine), count) for profile in todo)
        return
    from pvh.conformance.workers import spread

    # Forked workers have the kernel's bytes, and the modules' descriptors.
    def begin() -> Callable[[int], Attempt]:
        own = choose("kvm" if engine.name == "kvm" else "emulator", lambda _text: None)  # another's may not work here
        return lambda index: attempt(task, todo[index], own)

    for one in spread(len(todo), jobs, begin):
        yield one, count


def mappable(kernel: Kernel) -> Kernel:
    """Return the kernel with bytes that can be mapped: what was decompressed goes to a file in memory, once."""
    if not isinstance(kernel.source, BytesSource) or kernel.source.size < _MAP_FROM:
        return kernel
    path = file_of("kernel", kernel.source.data)
    source = open_source(path)
    forget_file(path)
    return replace(kernel, source=source)
