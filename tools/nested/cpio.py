"""What goes into the initramfs of the machine inside: folders as they are on disk."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from pvh.initramfs import Entry, archive

__all__ = ["Entry", "archive", "parents", "tree"]


def tree(folder: Path, prefix: str) -> Iterator[Entry]:
    """Give an entry for everything below a folder, parents first, under another prefix."""
    for path in [folder, *sorted(folder.rglob("*"))]:
        info = path.lstat()
        name = str(Path(prefix) / path.relative_to(folder))
        if stat.S_ISLNK(info.st_mode):
            yield Entry(name, info.st_mode, str(path.readlink()).encode())
        elif stat.S_ISREG(info.st_mode):
            yield Entry(name, info.st_mode, path.read_bytes())
        elif stat.S_ISDIR(info.st_mode):
            yield Entry(name, info.st_mode)


def parents(path: str) -> Iterator[Entry]:
    """Give an entry for each folder above a path."""
    for folder in list(Path(path).parents)[-2::-1]:
        yield Entry(str(folder), stat.S_IFDIR | 0o755)
