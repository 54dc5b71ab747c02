"""An initramfs: the archive that Linux unpacks as its first file system (newc; early-userspace in its docs)."""

from __future__ import annotations

import stat
from collections.abc import Iterable

from pvh.record import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """A file to archive: its path without a leading slash, st_mode, and content (a link's target for a link)."""

    path: str
    mode: int
    content: bytes = b""


def program(path: str, content: bytes) -> Entry:
    """Return an executable regular file."""
    return Entry(path, stat.S_IFREG | 0o755, content)


def archive(entries: Iterable[Entry]) -> bytes:
    """Return a whole archive, uncompressed. Several of them may follow one another in one initramfs."""
    parts = [_record(entry, number) for number, entry in enumerate(entries, 1)]
    return b"".join([*parts, _record(Entry("TRAILER!!!", 0), 0)])


def _record(entry: Entry, inode: int) -> bytes:
    name = entry.path.encode() + b"\0"
    # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    fields = (inode, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0, 0, 0, len(name), 0)
    return _padded(b"070701" + b"".join(b"%08X" % field for field in fields) + name) + _padded(entry.content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
