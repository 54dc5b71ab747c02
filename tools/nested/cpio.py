"""Write the archive format that Linux unpacks as its first file system (newc; early-userspace in its docs)."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """A file to archive: its path without a leading slash, st_mode, and content (a link's target for a link)."""

    path: str
    mode: int
    content: bytes = b""


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


def archive(entries: Iterator[Entry]) -> bytes:
    """Return a whole archive. Several of them may follow one another in one initramfs."""
    parts = [_record(entry, number) for number, entry in enumerate(entries, 1)]
    return b"".join([*parts, _record(Entry("TRAILER!!!", 0), 0)])


def _record(entry: Entry, inode: int) -> bytes:
    name = entry.path.encode() + b"\0"
    # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    fields = (inode, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0, 0, 0, len(name), 0)
    return _padded(b"070701" + b"".join(b"%08X" % field for field in fields) + name) + _padded(entry.content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
