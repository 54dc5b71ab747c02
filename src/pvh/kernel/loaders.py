"""How other loaders read the same file: would each boot it by PVH; if not, by what other path, or with what message?

A loader is a record: its checks in the order in which it makes them; the first that applies decides. Each cites the
file of the loader's source that makes it. Messages are the loader's own; why is ours.
The rules: loaders_xen.py, loaders_qemu.py, loaders_rust.py.
"""

from __future__ import annotations

from collections.abc import Callable

from pvh.hints import TYPE_CHECKING
from pvh.record import dataclass

if TYPE_CHECKING:
    from pvh.kernel.record import Kernel


@dataclass(frozen=True, slots=True)
class Rule:
    """One check of a loader.

    source   file of its repository
    applies  tells whether it decides about a kernel
    says     what the loader prints; "" where it says nothing
    path     how it boots the file otherwise; "" where it refuses
    why      the cause, where the message does not name it
    """

    source: str
    applies: Callable[[Kernel], bool]
    says: str = ""
    path: str = ""
    why: str | Callable[[Kernel], str] = ""


@dataclass(frozen=True, slots=True)
class Loader:
    """A loader.

    repository  and version: where and of when its rules were read
    path        how it goes about PVH
    entry       gives the physical address it enters at; None: none, which a rule has told already
    """

    name: str
    repository: str
    version: str
    path: str
    source: str
    rules: tuple[Rule, ...]
    entry: Callable[[Kernel], int | None]


@dataclass(frozen=True, slots=True)
class LoaderVerdict:
    """What a loader makes of a file.

    pvh     it boots it by PVH
    path    how it boots it; "" if not at all
    entry   where it enters, if by PVH
    says    the message it prints
    why     the cause, where the message does not name it
    source  repository, version and file that say so
    """

    loader: str
    pvh: bool
    path: str
    entry: int | None
    says: str
    why: str
    source: str


def judge(loader: Loader, kernel: Kernel) -> LoaderVerdict:
    """Return what one loader makes of a kernel."""
    where = f"{loader.repository} ({loader.version}), "
    for rule in loader.rules:
        if rule.applies(kernel):
            why = rule.why if isinstance(rule.why, str) else rule.why(kernel)
            return LoaderVerdict(loader.name, pvh=False, path=rule.path, entry=None, says=rule.says, why=why,
                                 source=where + rule.source)  # fmt: skip
    return LoaderVerdict(loader.name, pvh=True, path=loader.path, entry=loader.entry(kernel), says="", why="",
                         source=where + loader.source)  # fmt: skip


def judge_all(kernel: Kernel) -> tuple[LoaderVerdict, ...]:
    """Return what every loader makes of a kernel."""
    from pvh.kernel.loaders_qemu import QEMU
    from pvh.kernel.loaders_rust import CLOUD_HYPERVISOR, FIRECRACKER, LIBKRUN, LINUX_LOADER
    from pvh.kernel.loaders_xen import DOM0_BUILDER, LIBXENGUEST

    loaders = (LIBXENGUEST, DOM0_BUILDER, QEMU, FIRECRACKER, CLOUD_HYPERVISOR, LIBKRUN, LINUX_LOADER)
    return tuple(judge(loader, kernel) for loader in loaders)


def outer_format(kernel: Kernel) -> str:
    """Return what the file itself is: bzImage, gzip, ELF32 or ELF64."""
    return kernel.layers[0].format
