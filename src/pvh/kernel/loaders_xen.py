"""Xen's two loaders, which share libelf: the domain builder libxenguest, and the hypervisor's builder of dom0."""

from __future__ import annotations

from collections.abc import Callable

from pvh.hints import TYPE_CHECKING
from pvh.kernel.loaders import Loader, Rule

if TYPE_CHECKING:
    from pvh.kernel.record import Kernel

_REPOSITORY = "xen-project/xen"
_VERSION = "4.17 to 4.21"
_DOMINFO = "xen/common/libelf/libelf-dominfo.c"
_ELFLOADER = "tools/libs/guest/xg_dom_elfloader.c"
_CORE = "tools/libs/guest/xg_dom_core.c"
_DOM0 = "xen/arch/x86/hvm/dom0_build.c"

# What elf_xen_parse refuses, for which both loaders have one message only.
_PARSE = ("feature-unknown", "loader", "xen-version", "entry-outside", "p2m-inside", "segment-none")


def _has(*codes: str) -> Callable[[Kernel], bool]:
    return lambda kernel: any(problem.code in codes for problem in kernel.problems)


def _no_notes(kernel: Kernel) -> bool:
    return not any(note.owner == "Xen" for note in kernel.notes)


def _cause(kernel: Kernel) -> str:
    return kernel.problems[0].cause


def _dom0_problem(kernel: Kernel) -> bool:
    """Tell whether a check is left that dom0's builder makes too: it takes any start, and a kernel for dom0 only."""
    return any(problem.code not in ("start-unaligned", "dom0-required") for problem in kernel.problems)


LIBXENGUEST = Loader(
    "libxenguest", _REPOSITORY, _VERSION, "PVH", _ELFLOADER,
    (
        Rule(_CORE, _no_notes, "xc_dom_find_loader: no loader found"),
        Rule(_DOMINFO, _has(*_PARSE), "xc_dom_find_loader: no loader found"),
        Rule(_ELFLOADER, _has("phys32-entry-missing"),
             "xc_dom_guest_type: image not capable of booting inside a HVM container"),
        Rule(_ELFLOADER, _has("dom0-required"),
             "xc_dom_parse_elf_kernel: Kernel does not support unprivileged (DomU) operation"),
        Rule(_CORE, _has("feature-unsupported"), "xc_dom_parse_image: unsupported feature requested"),
        Rule("xen/common/libelf/libelf-loader.c", lambda kernel: bool(kernel.problems), why=_cause),
    ),
    lambda kernel: kernel.entry,
)  # fmt: skip

DOM0_BUILDER = Loader(
    "Xen dom0 builder", _REPOSITORY, _VERSION, "PVH (dom0=pvh)", _DOM0,
    (
        Rule(_DOM0, lambda kernel: _no_notes(kernel) or _has(*_PARSE)(kernel), "Unable to parse kernel for ELFNOTES"),
        Rule(_DOM0, _has("phys32-entry-missing"), "Unable to find XEN_ELFNOTE_PHYS32_ENTRY address"),
        Rule("xen/common/libelf/libelf-loader.c", _dom0_problem, why=_cause),
    ),
    lambda kernel: kernel.entry,
)  # fmt: skip
