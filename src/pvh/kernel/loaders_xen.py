"""Xen's two loaders, which share libelf: the domain builder libxenguest, and the hypervisor's builder of dom0.

libxenguest asks each of its loaders in turn: its own multiboot format (xg_dom_binloader.c, whose magic is not the
Multiboot specification's, and is passed over here), HVM firmware, bzImage, ELF. Firmware is any ELF in which
elf_xen_parse finds fault. From 2026 on the builder of dom0 also wants `dom0` in SUPPORTED_FEATURES, if that note is
there (dom0_check_parms); its rules here are those before.
"""

from __future__ import annotations

from collections.abc import Callable

from pvh.hints import TYPE_CHECKING
from pvh.kernel.elf import EM_386, EM_X86_64
from pvh.kernel.loaders import Loader, Rule, outer_format

if TYPE_CHECKING:
    from pvh.kernel.record import Kernel

_REPOSITORY = "xen-project/xen"
_VERSION = "4.17: Debian's 4.17.5 read, 4.17.7 run"
_DOMINFO = "xen/common/libelf/libelf-dominfo.c"
_LIBELF = "xen/common/libelf/libelf-loader.c"
_ELFLOADER = "tools/libs/guest/xg_dom_elfloader.c"
_HVMLOADER = "tools/libs/guest/xg_dom_hvmloader.c"
_BZLOADER = "tools/libs/guest/xg_dom_bzimageloader.c"
_CORE = "tools/libs/guest/xg_dom_core.c"
_DOM0 = "xen/arch/x86/hvm/dom0_build.c"
_PARSE = ("feature-unknown", "loader", "xen-version", "paddr-offset", "p2m-inside", "segment-none")
_MOST = 1 << 44  # bytes
_PART = "PVH, of what libelf could load"


def _has(*codes: str) -> Callable[[Kernel], bool]:
    return lambda kernel: any(problem.code in codes for problem in kernel.problems)


def _unparsed(kernel: Kernel) -> bool:
    """Tell whether elf_xen_parse fails. Files for other machines it lets pass without notes."""
    if not any(note.owner == "Xen" for note in kernel.notes) and kernel.machine in (EM_386, EM_X86_64):
        return True
    return _has(*_PARSE)(kernel) or not _in_bounds(kernel)


def _in_bounds(kernel: Kernel) -> bool:
    """Tell whether the entry, e_entry where the note is missing, is in the image."""
    entry = kernel.e_entry if kernel.entry is None else kernel.entry
    return kernel.start <= entry <= _end(kernel)


def _end(kernel: Kernel) -> int:
    """Return the image's end, a sum of 64 bits."""
    return kernel.end if kernel.end < 1 << 64 else max(segment.end % (1 << 64) for segment in kernel.loads)


def _cause(kernel: Kernel) -> str:
    return kernel.problems[0].cause


LIBXENGUEST = Loader(
    "libxenguest", _REPOSITORY, _VERSION, "PVH", _ELFLOADER, "run",
    (
        Rule(_CORE, lambda kernel: _unparsed(kernel) and outer_format(kernel) == "bzImage",
             "xc_dom_find_loader: no loader found", why=_cause),
        Rule(_HVMLOADER, lambda kernel: _unparsed(kernel) and kernel.bits == 64,
             "xc_dom_parse_hvm_kernel: ELF image is not 32bit", why=_cause),
        Rule(_HVMLOADER, _unparsed, path="as HVM firmware, at e_entry", why=_cause),
        Rule(_ELFLOADER, _has("dom0-required"),
             "xc_dom_parse_elf_kernel: Kernel does not support unprivileged (DomU) operation"),
        Rule(_ELFLOADER, _has("phys32-entry-missing"),
             "xc_dom_guest_type: image not capable of booting inside a HVM container"),
        Rule(_CORE, _has("feature-unsupported"), "xc_dom_parse_image: unsupported feature requested"),
        Rule(_BZLOADER, lambda kernel: any(layer.format == "bzip2" for layer in kernel.layers),
             "xc_try_bzip2_decode: BZIP2 decompress support unavailable", why="as Debian builds it, without libbz2"),
        Rule(_CORE, lambda kernel: _end(kernel) > _MOST,
             "xc_dom_chk_alloc_pages: segment kernel too large", why="no guest has memory up to there"),
        Rule(_CORE, _has("start-unaligned"), "xc_dom_alloc_pad: segment boundary isn't page aligned"),
        Rule(_LIBELF, lambda kernel: bool(kernel.problems), path=_PART, why=_cause),
    ),
    lambda kernel: kernel.entry,
)  # fmt: skip

DOM0_BUILDER = Loader(
    "Xen dom0 builder", _REPOSITORY, _VERSION, "PVH (dom0=pvh)", _DOM0, "read",
    (
        Rule(_DOM0, _unparsed, "Unable to parse kernel for ELFNOTES", why=_cause),
        Rule(_DOM0, _has("phys32-entry-missing"), "Unable to find XEN_ELFNOTE_PHYS32_ENTRY address"),
        Rule(_DOM0, _has("segment-filesz", "segment-wraps"), "Failed to load kernel: ", why=_cause,
             verified="unverified"),
        Rule(_LIBELF, _has("segment-total"), path=_PART, why=_cause),
        Rule(_LIBELF, _has("segment-beyond-file"), path="PVH, with what lies behind the file in memory", why=_cause),
    ),
    lambda kernel: kernel.entry,
)  # fmt: skip
