"""plan: from a kernel and options to every address, touching no guest memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from pvh import given
from pvh.abi import elfnote
from pvh.errors import DoesNotFit
from pvh.kernel.record import Kernel
from pvh.kernel.source import Source, open_source
from pvh.kernel.verdict import require_bootable
from pvh.plan import layout
from pvh.plan.asked import check
from pvh.plan.firmware import firmware
from pvh.plan.memory_map import Span, backed_blocks, memory_map
from pvh.plan.options import BootOptions
from pvh.plan.placement import free_gaps, kernel_ranges, least_memory, place, shifted
from pvh.plan.proof import prove
from pvh.plan.record import FileBytes, MemoryMapEntry, Plan, Range
from pvh.plan.start_info import InfoSegment, info_segment, string_bytes
from pvh.plan.units import mebibytes_up, size_text
from pvh.plan.variation import AS_XEN, Variation

_LINUX_CMDLINE = 2048  # COMMAND_LINE_SIZE of Linux on x86, with the NUL (arch/x86/include/asm/setup.h)


def plan(kernel: Kernel, options: BootOptions) -> Plan:
    """Decide where every byte of guest-physical memory goes, as libxl and libxenguest do for a PVH domU.

    Modules are handed over as they are (libxenguest unpacks a gzipped one, if it can: no kernel may rely on that).
    Raises NotBootable for a kernel this ABI refuses, UsageError for options that make no sense or a module that
    cannot be read, DoesNotFit, with the memory that is needed, when the guest's memory is too small.

    >>> plan = pvh.plan(pvh.read_kernel(pvh.demo_path()), pvh.BootOptions(memory=64 << 20))
    >>> assert plan.start_info.paddr >= plan.kernel.end
    """
    given.kind("a kernel", kernel, Kernel, "a Kernel, as read_kernel() returns")
    require_bootable(kernel)
    check(options)
    sources = tuple(open_source(spec.path) for spec in options.modules)
    variation = options.variation
    kernel = shifted(kernel, variation.shift)
    fixed = firmware(kernel, options)
    entries = memory_map(options.memory, fixed.nvs, fixed.reserved, variation)
    memmap = _told(entries, variation)
    segment = info_segment(options, len(memmap or entries))
    taken = (*fixed.nvs, *variation.missing)
    spots, base = _places(kernel, options.memory, [source.size for source in sources], segment.size, taken)
    placed = [*kernel_ranges(kernel), *_module_ranges(kernel, sources, spots)]
    segment = _moved(segment, base, kernel, options, [*taken, *((r.start, r.end) for r in placed)])
    listed = zip(options.modules, sources, spots, strict=True)
    modules = tuple(segment.module(base, i, spot, src.size, spec.path) for i, (spec, src, spot) in enumerate(listed))
    ranges = [*placed, *segment.ranges(base, _info_reason(kernel, base, spots)), *fixed.ranges]
    assert kernel.entry is not None
    made = Plan(
        kernel=kernel,
        options=options,
        ranges=tuple(sorted(ranges, key=lambda r: r.start)),
        memory_map=entries,
        backed=backed_blocks(options.memory, fixed.ranges, variation),
        entry=kernel.entry,
        start_info=segment.values(base, options, modules, fixed.rsdp, memmap),
        warnings=(*_warnings(options, sources), *fixed.warnings),
    )
    prove(made)
    return made


def _told(entries: tuple[MemoryMapEntry, ...], variation: Variation) -> tuple[MemoryMapEntry, ...] | None:
    """Return the memory map as start_info shows it, if not as it is."""
    if variation is AS_XEN:
        return None
    from pvh.plan.vary import handed  # only what varies pays for it

    return handed(entries, variation)


def _moved(segment: InfoSegment, base: int, kernel: Kernel, options: BootOptions, taken: Sequence[Span]) -> InfoSegment:
    """Return the start_info segment with its parts where the variation wants them."""
    variation = options.variation
    if not variation.edge and variation.scatter is None:
        return segment
    from pvh.plan.vary import moved

    low_end = min(options.memory, layout.LOW_RAM_END)
    stays = (base, base + layout.page_up(segment.size))
    return moved(segment, base, free_gaps(kernel, low_end, [*taken, stays]), low_end, variation)


def _modules_last(kernel: Kernel) -> bool:
    """Tell whether the kernel takes modules behind start_info: MOD_START_PFN is there and not 0."""
    note = kernel.note(elfnote.MOD_START_PFN)
    return note is not None and bool(note.value)


def _places(
    kernel: Kernel, memory: int, module_sizes: Sequence[int], info_size: int, taken: Sequence[Span]
) -> tuple[list[int], int]:
    """Return the modules' addresses and the start_info segment's; raise DoesNotFit."""
    info_at = 0 if _modules_last(kernel) else len(module_sizes)
    sizes = [*module_sizes[:info_at], info_size, *module_sizes[info_at:]]
    spots = _try(kernel, sizes, taken, memory)
    if spots is None:
        raise _does_not_fit(kernel, memory, sizes, least_memory(partial(_fits, kernel, sizes, taken), kernel.end))
    base = spots.pop(info_at)
    return spots, base


def _try(kernel: Kernel, sizes: Sequence[int], taken: Sequence[Span], memory: int) -> list[int] | None:
    low_end = min(memory, layout.LOW_RAM_END)
    return place(sizes, free_gaps(kernel, low_end, taken)) if kernel.end <= low_end else None


def _fits(kernel: Kernel, sizes: Sequence[int], taken: Sequence[Span], memory: int) -> bool:
    return _try(kernel, sizes, taken, memory) is not None


def _does_not_fit(kernel: Kernel, memory: int, sizes: Sequence[int], need: int | None) -> DoesNotFit:
    what = f"the kernel at {kernel.start:#x}-{kernel.end:#x} and {size_text(sum(sizes))} of modules and start_info"
    if need is None:
        return DoesNotFit(
            f"{what} fit no guest: RAM below 4 GiB ends at {layout.LOW_RAM_END:#x}, whatever --memory says",
            path=kernel.path,
            hint="smaller modules, or a kernel linked lower",
        )
    return DoesNotFit(
        f"{what} do not fit {size_text(memory)} of memory",
        path=kernel.path,
        found=f"{memory} bytes",
        wanted=f"at least {need} bytes",
        hint=f"--memory {mebibytes_up(need)}M",
    )


def _module_ranges(kernel: Kernel, sources: Sequence[Source], spots: Sequence[int]) -> list[Range]:
    """Return a range for each module that has any bytes."""
    rule = layout.MODULE_AFTER_START_INFO if _modules_last(kernel) else layout.MODULE_AFTER_KERNEL
    ranges: list[Range] = []
    for index, (source, spot) in enumerate(zip(sources, spots, strict=True)):
        reason = f"{source.path}: {layout.BELOW_REASON if spot < kernel.start else rule}"
        content = FileBytes(source, 0, source.size)
        if source.size:
            ranges.append(Range(spot, source.size, "module", f"module {index}", reason, content))
    return ranges


def _info_reason(kernel: Kernel, base: int, spots: Sequence[int]) -> str:
    if base < kernel.start:
        return layout.BELOW_REASON
    behind_modules = spots and not _modules_last(kernel)
    return layout.START_INFO_AFTER_MODULES if behind_modules else layout.START_INFO_AFTER_KERNEL


def _warnings(options: BootOptions, sources: Sequence[Source]) -> list[str]:
    """Return what is legal and yet likely not meant."""
    warnings: list[str] = []
    length = len(string_bytes(options.cmdline, "the cmdline")) - 1
    if length >= _LINUX_CMDLINE:
        warnings.append(f"the command line has {length} bytes; Linux reads {_LINUX_CMDLINE - 1} and drops the rest")
    for index, (spec, source) in enumerate(zip(options.modules, sources, strict=True)):
        if not source.size:
            warnings.append(f"module {index} ({spec.path}) is empty")
        if spec.cmdline is not None and options.abi == "draft-c":
            warnings.append(
                f"module {index} ({spec.path}) has a command line, which Draft C has no place for: left out"
            )
    return warnings
