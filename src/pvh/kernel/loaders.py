"""How other loaders read the same file: would each boot it by PVH; if not, by what other path, or with what message?

A loader is a record: its checks in the order in which it makes them; the first that applies decides. Each cites the
file of the loader's source that makes it, and how far it is known to be so. Messages are the loader's own; why is ours.
The rules: loaders_xen.py, loaders_qemu.py, loaders_rust.py.
"""

from __future__ import annotations

from collections.abc import Callable

from pvh.hints import TYPE_CHECKING, Literal
from pvh.record import dataclass

if TYPE_CHECKING:
    from pvh.kernel.record import Kernel

# run         tests/kernel/test_loaders.py sees the loader itself, of the version named, do so with files of the corpus
# read        its source of that version says so
# unverified  neither: what we take it to do
Verified = Literal["run", "read", "unverified"]
Text = str | Callable[["Kernel"], str]


@dataclass(frozen=True, slots=True)
class Rule:
    """One check of a loader.

    source    file of its repository
    applies   tells whether it decides about a kernel
    says      what the loader prints; "" where it says nothing
    path      how it boots the file otherwise; "" where it refuses
    why       the cause, where the message does not name it
    verified  how far this is known; None: as the loader's other rules are
    """

    source: str
    applies: Callable[[Kernel], bool]
    says: Text = ""
    path: str = ""
    why: Text = ""
    verified: Verified | None = None


@dataclass(frozen=True, slots=True)
class Loader:
    """A loader.

    repository  and version: what its rules were read in, and tried with
    path        how it goes about PVH
    verified    how far its rules are known
    entry       gives the physical address it enters at; None: none, which a rule has told already
    """

    name: str
    repository: str
    version: str
    path: str
    source: str
    verified: Verified
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
    verified  how far that is known
    """

    loader: str
    pvh: bool
    path: str
    entry: int | None
    says: str
    why: str
    source: str
    verified: Verified


def judge(loader: Loader, kernel: Kernel) -> LoaderVerdict:
    """Return what one loader makes of a kernel."""
    where = f"{loader.repository} ({loader.version}), "
    for rule in loader.rules:
        if rule.applies(kernel):
            return LoaderVerdict(loader.name, pvh=False, path=rule.path, entry=None, says=_text(rule.says, kernel),
                                 why=_text(rule.why, kernel), source=where + rule.source,
                                 verified=rule.verified or loader.verified)  # fmt: skip
    return LoaderVerdict(loader.name, pvh=True, path=loader.path, entry=loader.entry(kernel), says="", why="",
                         source=where + loader.source, verified=loader.verified)  # fmt: skip


def _text(text: Text, kernel: Kernel) -> str:
    return text if isinstance(text, str) else text(kernel)


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
