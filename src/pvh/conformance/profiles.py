"""Profiles: guests that the ABI allows and that are otherwise than libxenguest's, by a seed.

A profile is some deviations, each of one clause, so that what fails under a profile can be narrowed down to the one
that matters.
"""

from __future__ import annotations

import random
from functools import cache, reduce

from pvh.abi.x86 import PAGE_SIZE
from pvh.conformance.disturbed import LITTERS, Deviation, processor
from pvh.hints import TYPE_CHECKING
from pvh.host import file_of
from pvh.plan import layout
from pvh.plan.options import BootOptions, ModuleSpec
from pvh.record import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pvh.kernel.record import Kernel

_MIB = 1 << 20
_MOST_MODULES = 8
_FEW = 2
_LONG = 8000  # bytes; Linux takes 2047, and the ABI has no limit
_UNKNOWN_TYPE = 0x20


@dataclass(frozen=True, slots=True)
class Profile:
    """A guest to try the kernel with.

    about     for a person, what it is for
    lenient   it differs in what a user gives, so the kernel may do otherwise; it may not break, though
    """

    name: str
    about: str
    deviations: tuple[Deviation, ...] = ()
    lenient: bool = False


NAMES = (
    "kind", "ones", "random", "nasty", "edge", "scattered", "memory-map", "no-map", "version-0", "version-9", "no-acpi",
    "odd-memory", "high-memory", "vcpus-1", "vcpus-2", "vcpus-3", "vcpus-4", "long-cmdline", "no-cmdline", "modules",
    "plain-module", "some-modules", "no-modules", "moved-low", "moved-high",
)  # fmt: skip
"""What profiles are called, in their order; which there are for a kernel and guest, profiles() tells."""

KIND = Profile("kind", "as libxenguest boots it: registers, flags and free RAM are zero, everything is in order")


def applied(options: BootOptions, deviations: Iterable[Deviation]) -> BootOptions:
    """Return the options with all deviations. No two of a profile set the same thing."""

    def apply(made: BootOptions, deviation: Deviation) -> BootOptions:
        fields = dict(deviation.variation)
        fields["registers"] = (*made.variation.registers, *deviation.registers)
        return replace(made, variation=replace(made.variation, **fields), **dict(deviation.options))

    return reduce(apply, deviations, options)


def profiles(kernel: Kernel, options: BootOptions, seed: int = 1) -> tuple[Profile, ...]:
    """Return every profile that makes sense for this kernel and guest; the first is KIND."""
    low_end = min(options.memory, layout.LOW_RAM_END)
    found = [KIND]
    for flavour, about in (
        ("ones", "everything that is not promised is ones"),
        ("random", "everything that is not promised is random"),
        ("nasty", "what other loaders leave behind: multiboot's magic, a stack in MMIO, DF set, odd selectors"),
    ):
        found.append(Profile(flavour, about, processor(flavour, seed, low_end)))
    found += _structures(kernel, options, seed)
    found += _amounts(options)
    found += _given(options, seed)
    found += _relocations(kernel, low_end)
    return tuple(found)


def _litter(seed: int) -> Deviation:
    return Deviation("memory.poison", "RAM with something in it", variation=(("poison", seed),))


def _structures(kernel: Kernel, options: BootOptions, seed: int) -> Iterator[Profile]:
    litter = _litter(seed)
    edge = Deviation("start_info.last-bytes", "start_info as the last bytes of RAM below 4 GiB",
                     variation=(("edge", True),))  # fmt: skip
    scatter = Deviation("memory.placement", "start_info's parts far apart, each at the end of a page",
                        variation=(("scatter", seed),))  # fmt: skip
    last = min(options.memory, layout.LOW_RAM_END) - 1
    stack = Deviation("entry.esp", f"ESP = {last:#x}, the last byte of RAM", (("rsp", last),))
    yield Profile("edge", "start_info is the last bytes of RAM, and ESP the very last: nothing can be read behind it", (
        litter, stack, edge,
    ))  # fmt: skip
    yield Profile("scattered", "what start_info points to is all over RAM", (litter, scatter))
    if options.abi == "v1":
        yield Profile("memory-map", "a memory map that says the same otherwise", _map(kernel, options, seed))
        yield Profile("no-map", "memmap_entries is 0", (
            litter, Deviation("memmap.empty", "no memory map", variation=(("mapped", False),)),
        ))  # fmt: skip
        yield Profile("version-0", "start_info of version 0, with bytes behind it that are no memory map", (
            litter, replace(scatter, variation=(("scatter", seed + 1), ("edge", True))),
            Deviation("memmap.v0-absent", "start_info of version 0", options=(("abi", "v0"),)),
        ))  # fmt: skip
        yield Profile("version-9", "a version to come, with fields that nobody knows yet", (
            litter,
            Deviation("version.future", "version 9 of start_info, 64 bytes longer",
                      variation=(("version", 9), ("tail", 64))),
        ))  # fmt: skip
    yield Profile("no-acpi", "rsdp_paddr is 0", (
        litter, Deviation("rsdp.absent", "no ACPI tables", variation=(("acpi", False),)),
    ))  # fmt: skip


def _map(kernel: Kernel, options: BootOptions, seed: int) -> tuple[Deviation, ...]:
    made = [
        Deviation("memmap.order", "a memory map in no order", variation=(("disorder", seed),)),
        Deviation("memmap.count", "a memory map of 48 entries more", variation=(("pieces", 48),)),
        Deviation("memmap.zero-size", "entries of size 0 in the memory map", variation=(("empties", True),)),
    ]
    low_end = min(options.memory, layout.LOW_RAM_END)
    hole, foreign = (low_end * part // 8 // _MIB * _MIB for part in (6, 7))
    if hole >= kernel.end + _MIB and foreign >= hole + _MIB:
        made += [
            Deviation("memmap.holes", f"no RAM from {hole:#x} to {hole + _MIB:#x}",
                      variation=(("holes", ((hole, _MIB),)),)),
            Deviation("memmap.types", f"memory of type {_UNKNOWN_TYPE:#x}, not RAM, at {foreign:#x}",
                      variation=(("foreign", ((foreign, _MIB // 2, _UNKNOWN_TYPE),)),)),
        ]  # fmt: skip
    return tuple(made)


def _amounts(options: BootOptions) -> Iterator[Profile]:
    for memory, name, about in (
        (options.memory - 3 * PAGE_SIZE, "odd-memory", "RAM that ends on an odd page"),
        (layout.LOW_RAM_END + 1024 * _MIB, "high-memory", "RAM below and above 4 GiB"),
    ):
        amount = Deviation("memory.amount", f"{memory >> 10} KiB of RAM", options=(("memory", memory),))
        if memory > 0:
            yield Profile(name, about, (amount, _litter(-1)))
    for vcpus in sorted({1, 2, 3, 4} - {options.vcpus}):
        more = Deviation("vcpus", f"{vcpus} processors", options=(("vcpus", vcpus),))
        yield Profile(f"vcpus-{vcpus}", f"{vcpus} processor{'s' * (vcpus > 1)}", (more,), lenient=True)


def _given(options: BootOptions, seed: int) -> Iterator[Profile]:
    """Yield profiles that have more, or less, of what a user gives."""
    spaces = " " * (_LONG - len(options.cmdline))
    yield Profile("long-cmdline", "a command line that ends in many spaces", (
        Deviation("cmdline.long", f"a command line of {_LONG} bytes", options=(("cmdline", options.cmdline + spaces),)),
    ))  # fmt: skip
    if options.cmdline:
        none = Deviation("cmdline.absent", "no command line", options=(("cmdline", ""),))
        yield Profile("no-cmdline", "cmdline_paddr is 0", (none,), lenient=True)
    # A kernel that was given none may take the first for what it looks for, and find that it is not.
    first = not options.modules
    room = _MOST_MODULES - len(options.modules)
    if room > 0:
        yield Profile("modules", f"{_MOST_MODULES} modules", (
            _more_modules(options, "modules.count", room, "more"),
        ), lenient=first)  # fmt: skip
        yield Profile("plain-module", "one more module, without a command line", (
            _more_modules(options, "modules.cmdline-absent", 1, None),
        ), lenient=first)  # fmt: skip
    if room > _FEW:
        # Neither as many as there may be nor one more: a kernel may have a special case for either.
        some = random.Random(f"modules {seed}").randrange(_FEW, room)  # noqa: S311 - no secret
        yield Profile("some-modules", f"{len(options.modules) + some} modules", (
            _more_modules(options, "modules.count", some, "some"),
        ), lenient=first)  # fmt: skip
    if options.modules:
        none = Deviation("modules.absent", "no modules", options=(("modules", ()),))
        yield Profile("no-modules", "nr_modules is 0", (none,), lenient=True)


def _more_modules(options: BootOptions, clause: str, count: int, cmdline: str | None) -> Deviation:
    """Add modules behind the user's."""
    added = [ModuleSpec(_module(index), cmdline) for index in range(count)]
    what = f"{count} more module{'s' * (count > 1)}" + (" without a command line" if cmdline is None else "")
    return Deviation(clause, what, options=(("modules", (*options.modules, *added)),))


@cache
def _module(index: int) -> str:
    """Return the path of a module; its bytes are in memory, under a name that can be opened as a file."""
    return file_of(f"module {index}", f"a module that pvh check added, number {index}\n".encode() * 100)


def _relocations(kernel: Kernel, low_end: int) -> Iterator[Profile]:
    """Yield the two places furthest apart where PHYS32_RELOC lets the kernel be put, but for where it was linked."""
    allowed = kernel.relocation
    if allowed is None or not allowed.align:
        return
    size = kernel.end - kernel.start
    highest = min(allowed.last + 1, low_end // 2) - size
    # The image keeps its offset to the alignment: only multiples are added to where it was linked.
    least = -(-(max(allowed.min, _MIB) - kernel.start) // allowed.align)
    most = (highest - kernel.start) // allowed.align
    for name, steps in (("moved-low", least or 1), ("moved-high", most)):
        if steps and least <= steps <= most:
            shift = steps * allowed.align
            where = Deviation("reloc", f"the image at {kernel.start + shift:#x}", variation=(("shift", shift),))
            yield Profile(name, "the kernel where PHYS32_RELOC allows it to be", (where, _litter(LITTERS)))
