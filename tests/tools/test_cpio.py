"""tools/nested/cpio.py against the format's own description (Linux, early-userspace/buffer-format.rst)."""

from __future__ import annotations

import stat
from pathlib import Path

from tools.nested import cpio


def fields(data: bytes, at: int) -> tuple[str, int, bytes, int]:
    """Read one record: its name, mode, content, and where the next starts."""
    assert data[at : at + 6] == b"070701"
    numbers = [int(data[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)]
    name_end = at + 110 + numbers[11]
    content = (name_end + 3) & ~3
    end = content + numbers[6]
    return data[at + 110 : name_end - 1].decode(), numbers[1], data[content:end], (end + 3) & ~3


def test_records_are_padded_to_four_bytes_and_end_with_the_trailer(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("folder/file")
    data = cpio.archive(cpio.tree(tmp_path, "top"))
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while "TRAILER!!!" not in found:
        name, mode, content, at = fields(data, at)
        found[name] = (stat.S_IFMT(mode), content)
    assert at == len(data)
    assert list(found) == ["top", "top/folder", "top/folder/file", "top/link", "TRAILER!!!"]
    assert found["top/folder/file"] == (stat.S_IFREG, b"12345")
    assert found["top/link"] == (stat.S_IFLNK, b"folder/file")


def test_the_folders_above_a_path_come_outermost_first() -> None:
    assert [entry.path for entry in cpio.parents("usr/lib/python3.11")] == ["usr", "usr/lib"]
