"""Why libxenguest refuses a kernel as a PVH guest: one rule a function, in the order in which it meets them.

Sources: xen/common/libelf/libelf-dominfo.c (elf_xen_parse, elf_xen_note_check, elf_xen_addr_calc_check),
libelf-loader.c (elf_load_binary), tools/libs/guest/xg_dom_elfloader.c and xg_dom_core.c. Where libelf only marks a file
"broken", after which libxenguest boots half an image, this package refuses; those rules say so.
"""

from __future__ import annotations

from collections.abc import Callable

from pvh.abi import elfnote, features
from pvh.abi.x86 import PAGE_SIZE
from pvh.errors import NotBootable
from pvh.kernel import advice
from pvh.kernel.features import names, unknown_required
from pvh.kernel.record import Finding, Kernel

Rule = Callable[[Kernel], Finding | None]

_UNSET = (1 << 64) - 1  # UNSET_ADDR


def unknown_feature(kernel: Kernel) -> Finding | None:
    """Refuse a FEATURES note that requires what libelf does not know."""
    for note in kernel.notes:
        if note.owner == elfnote.OWNER and note.type == elfnote.FEATURES and isinstance(note.value, str):
            for token in unknown_required(note.value):
                return Finding(
                    "feature-unknown",
                    "requires a feature that Xen does not know",
                    "FEATURES",
                    note.offset,
                    token,
                    "one of " + ", ".join(features.NAMES[number] for number in features.PARSED),
                    "drop the `!`, or correct the name",
                )
    return None


def entry_missing(kernel: Kernel) -> Finding | None:
    """Refuse a kernel without PHYS32_ENTRY, the one note that the ABI requires."""
    if kernel.entry is not None:
        return None
    found, hint = advice.no_entry(kernel)
    return Finding(
        "phys32-entry-missing",
        "has no PVH entry point: no Xen note PHYS32_ENTRY (18)",
        "PHYS32_ENTRY",
        _offset(kernel, elfnote.PHYS32_ENTRY),
        found,
        "a note of owner `Xen`, type 18, with the 32-bit physical entry address",
        hint,
    )


def loader(kernel: Kernel) -> Finding | None:
    """Refuse a loader other than `generic`, which is looked at only where PHYS32_ENTRY is missing."""
    if kernel.entry is not None or not advice.has_xen_notes(kernel):
        return None
    name, guest_os = advice.text(kernel, elfnote.LOADER), advice.text(kernel, elfnote.GUEST_OS)
    if name.startswith("generic") or guest_os.startswith("linux"):
        return None
    return Finding(
        "loader",
        "is made for another loader than Xen's",
        "LOADER",
        found=f"LOADER `{name}`, GUEST_OS `{guest_os}`",
        wanted="LOADER `generic`, GUEST_OS `linux`, or PHYS32_ENTRY, which makes both needless",
    )


def xen_version(kernel: Kernel) -> Finding | None:
    """Refuse another interface than Xen 3.0's, which is looked at only where PHYS32_ENTRY is missing."""
    if kernel.entry is not None or not advice.has_xen_notes(kernel):
        return None
    version = advice.text(kernel, elfnote.XEN_VERSION)
    if version.startswith("xen-3.0"):
        return None
    return Finding(
        "xen-version",
        "is not made for Xen's interface",
        "XEN_VERSION",
        found=f"`{version}`",
        wanted="`xen-3.0`, or PHYS32_ENTRY, which makes it needless",
    )


def nothing_loads(kernel: Kernel) -> Finding | None:
    """Refuse an image without a segment to load: its start is then above its end (kstart > kend)."""
    if kernel.loads:
        return None
    return Finding(
        "segment-none",
        "has nothing to load",
        "program headers",
        found=f"{len(kernel.segments)} program headers, none of them PT_LOAD with a flag of R, W, X",
        wanted="one at least",
        hint="give the linked kernel (vmlinux), not an object file",
    )


def segment_wraps(kernel: Kernel) -> Finding | None:
    """Refuse a segment that passes the end of the address space: libelf's 64-bit sum gives an end below its start."""
    for segment in kernel.loads:
        if segment.end >= 1 << 64:
            return Finding(
                "segment-wraps",
                "has a segment that passes the end of the address space",
                f"segment {segment.index} p_memsz",
                found=f"{segment.memsz:#x} bytes at {segment.paddr:#x}",
                wanted="an end below 2^64",
            )
    return None


def paddr_offset(kernel: Kernel) -> Finding | None:
    """Refuse PADDR_OFFSET without VIRT_BASE: both are of no use to PVH, and checked all the same. -1 means unset."""
    offset, base = (kernel.note(number) for number in (elfnote.PADDR_OFFSET, elfnote.VIRT_BASE))
    if offset is None or not isinstance(offset.value, int) or offset.value == _UNSET:
        return None
    if base is not None and base.value != _UNSET:
        return None
    return Finding(
        "paddr-offset",
        "has the note PADDR_OFFSET without VIRT_BASE",
        "PADDR_OFFSET",
        offset.offset,
        f"{offset.value:#x}",
        "both, or neither",
        "drop the note: PVH has no use for it",
    )


def entry_outside(kernel: Kernel) -> Finding | None:
    """Refuse an entry outside the image. An entry just behind it passes, as in libelf."""
    if kernel.entry is None or not kernel.loads or kernel.start <= kernel.entry <= kernel.end:
        return None
    return Finding(
        "entry-outside",
        "has an entry outside its own image",
        "PHYS32_ENTRY",
        _offset(kernel, elfnote.PHYS32_ENTRY),
        f"{kernel.entry:#x}",
        f"{kernel.start:#x} to {kernel.end:#x}",
        "give the physical address: the virtual one less the offset between p_vaddr and p_paddr",
    )


def p2m_inside(kernel: Kernel) -> Finding | None:
    """Refuse an INIT_P2M inside the image: the bounds are checked for PVH too, though the value is not used."""
    note = kernel.note(elfnote.INIT_P2M)
    if note is None or not isinstance(note.value, int) or not kernel.start <= note.value < kernel.end:
        return None
    return Finding(
        "p2m-inside",
        "wants the P2M table of PV guests inside its own image",
        "INIT_P2M",
        note.offset,
        f"{note.value:#x}",
        f"outside {kernel.start:#x} to {kernel.end:#x}",
        "drop the note: PVH has no use for it",
    )


def dom0_required(kernel: Kernel) -> Finding | None:
    """Refuse a kernel that requires to be dom0."""
    if not kernel.features.required >> features.DOM0 & 1:
        return None
    return Finding(
        "dom0-required",
        "runs as the privileged domain only",
        "FEATURES",
        found="!dom0",
        wanted="dom0 not required",
        hint="this is no guest kernel: drop the `!` if it can be one",
    )


def unsupported_feature(kernel: Kernel) -> Finding | None:
    """Refuse a required feature that the kernel does not support itself."""
    missing = kernel.features.required & ~kernel.features.supported
    if not missing:
        return None
    return Finding(
        "feature-unsupported",
        "requires a feature that it does not support",
        "FEATURES",
        found=", ".join(names(missing)),
        wanted="every required feature supported",
    )


def start_unaligned(kernel: Kernel) -> Finding | None:
    """Refuse an image that does not start on a page."""
    if kernel.start % PAGE_SIZE == 0:
        return None
    return Finding(
        "start-unaligned",
        "does not start on a page",
        "p_paddr",
        found=f"{kernel.start:#x}",
        wanted="a lowest p_paddr that is a multiple of 4096",
        hint="align the first section in the linker script: . = ALIGN(4096)",
    )


def segments_too_large(kernel: Kernel) -> Finding | None:
    """Refuse segments that sum up to more than twice the image: libelf loads no more ("broken")."""
    span = -(-(kernel.end - kernel.start) // PAGE_SIZE) * PAGE_SIZE
    total = sum(segment.memsz for segment in kernel.loads)
    if total <= 2 * span:
        return None
    return Finding(
        "segment-total",
        "has segments that overlap beyond reason",
        "p_memsz",
        found=f"{total:#x} bytes in an image of {span:#x}",
        wanted="at most twice the image",
    )


def file_bytes_exceed_memory(kernel: Kernel) -> Finding | None:
    """Refuse a segment with more bytes in the file than in memory: libelf would write behind it ("broken")."""
    for segment in kernel.loads:
        if segment.filesz > segment.memsz:
            return Finding(
                "segment-filesz",
                "has a segment larger in the file than in memory",
                f"segment {segment.index} p_filesz",
                found=f"{segment.filesz:#x}",
                wanted=f"at most p_memsz, {segment.memsz:#x}",
            )
    return None


def beyond_file(kernel: Kernel) -> Finding | None:
    """Refuse a segment whose bytes the file does not hold: libelf would leave it empty ("broken")."""
    for segment in kernel.loads:
        if segment.offset + segment.filesz > kernel.source.size:
            return Finding(
                "segment-beyond-file",
                "is cut short: a segment reaches beyond the file",
                f"segment {segment.index} p_filesz",
                segment.offset,
                f"{kernel.source.size} bytes",
                f"{segment.offset + segment.filesz} bytes at least",
                "get the file again",
            )
    return None


def _offset(kernel: Kernel, number: int) -> int | None:
    """Return where the Xen note of a number is in the ELF file."""
    note = kernel.note(number)
    return note.offset if note else None


RULES: tuple[Rule, ...] = (
    beyond_file,  # first, because everything else may follow from it
    unknown_feature,
    entry_missing,
    loader,
    xen_version,
    nothing_loads,
    paddr_offset,
    segment_wraps,
    entry_outside,
    p2m_inside,
    dom0_required,
    unsupported_feature,
    start_unaligned,
    segments_too_large,
    file_bytes_exceed_memory,
)


def problems(kernel: Kernel) -> tuple[Finding, ...]:
    """Return every reason to refuse, first cause first."""
    return tuple(finding for rule in RULES if (finding := rule(kernel)))


def require_bootable(kernel: Kernel) -> None:
    """Raise NotBootable with the first reason, if there is any."""
    for first in kernel.problems[:1]:
        hint, _, lines = first.hint.partition("\n")
        more = "; `pvh inspect` shows the lines" if lines else ""
        raise NotBootable(
            first.cause,
            path=kernel.path,
            offset=first.offset,
            found=first.found or None,
            wanted=first.wanted or None,
            hint=(hint.rstrip(":") + more) or None,
        )
