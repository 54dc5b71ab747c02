"""The boot cache: what it keeps, and what it does not believe."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pvh import cache as cache_
from pvh.build.builder import build
from pvh.cache import Cache, key, limit
from pvh.engines.emulator.engine import EmulatorEngine
from pvh.errors import UsageError
from pvh.kernel.read import read_kernel
from pvh.machine import Machine
from pvh.plan.options import BootOptions, ModuleSpec
from pvh.plan.planner import plan
from pvh.snapshot import resume

KERNEL = str(Path(__file__).parent / "guests" / "hello.elf")
OPTIONS = BootOptions(memory=16 << 20, timeout=20)
ENGINE = EmulatorEngine()


class Place:
    """A cache in a folder of its own, and what it says."""

    def __init__(self, path: Path, most: int = 1 << 30) -> None:
        self.path = path
        self.said: list[str] = []
        self.cache = Cache(self.said.append, str(path), most)

    def keep(self, name: str = "entry") -> None:
        machine = Machine(build(plan(read_kernel(KERNEL), OPTIONS)), ENGINE, lambda _: None)
        self.cache.keep(name, machine)
        machine.vm.close()
        machine.image.ram.close()

    def run(self, name: str = "entry") -> bytes | None:
        found = self.cache.find(name, KERNEL, OPTIONS)
        if found is None:
            return None
        said = bytearray()
        machine = resume(found, ENGINE, said.extend)
        machine.run()
        machine.image.ram.close()
        return bytes(said)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path / "cache")
    made.keep()
    assert made.said == []
    return made


def test_an_entry_is_found_by_its_key_and_goes_on_each_time(place: Place) -> None:
    assert place.run() == place.run() == b"Hello from PVH\n"
    assert place.run("other") is None
    assert place.said == []
    (entry,) = place.cache.entries()
    assert (entry.key, entry.kernel, entry.memory, entry.vcpus) == ("entry", KERNEL, 16 << 20, 1)
    assert 0 < entry.size < 2 << 20
    assert place.path.stat().st_mode & 0o777 == 0o700


def damage_text(entry: Path) -> None:
    with (entry / "guest").open("r+b") as file:
        file.seek(500)
        file.write(b"#")


def cut_text(entry: Path) -> None:
    os.truncate(entry / "guest", 300)


def write_ram(entry: Path) -> None:
    """One byte, and the time of the last change put back: that of the inode's is nobody's to set."""
    stat = (entry / "ram").stat()
    with (entry / "ram").open("r+b") as file:
        file.write(b"#")
    os.utime(entry / "ram", ns=(stat.st_atime_ns, stat.st_mtime_ns))


def cut_ram(entry: Path) -> None:
    os.truncate(entry / "ram", 4096)


def copy_ram(entry: Path) -> None:
    shutil.copy2(entry / "ram", entry / "copy")
    (entry / "copy").rename(entry / "ram")


def link_ram(entry: Path) -> None:
    (entry / "ram").rename(entry / "real")
    (entry / "ram").symlink_to("real")


def open_folder(entry: Path) -> None:
    entry.chmod(0o755)


def open_ram(entry: Path) -> None:
    (entry / "ram").chmod(0o644)


def lose_ram(entry: Path) -> None:
    (entry / "ram").unlink()


@pytest.mark.parametrize(
    "harm", [damage_text, cut_text, write_ram, cut_ram, copy_ram, link_ram, open_folder, open_ram, lose_ram]
)
def test_an_entry_that_somebody_touched_is_dropped_with_one_line(place: Place, harm: object) -> None:
    assert callable(harm)
    harm(place.path / "entry")
    assert place.run() is None
    (line,) = place.said
    assert line.startswith("dropped entry from the boot cache: ")
    assert not (place.path / "entry").exists()
    assert place.run() is None
    assert len(place.said) == 1


def test_a_restart_of_the_host_ends_an_entrys_life(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(cache_, "_BOOT_ID", str(tmp_path / "boot_id"))
    assert place.run() is None
    assert "restarted" in place.said[0]


def test_an_entry_of_another_user_is_dropped(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert place.run() is None
    assert "another user" in place.said[0]


def test_nothing_is_kept_where_others_may_look(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    place = Place(tmp_path / "open")
    place.keep()
    assert "other users may reach it" in place.said[0]
    assert place.cache.entries() == []


def test_the_entries_used_least_lately_make_room(place: Place) -> None:
    size = place.cache.entries()[0].size
    small = Place(place.path, 3 * size)
    for number, name in enumerate(("b", "c")):
        small.keep(name)
        os.utime(place.path / name, (number + 1, number + 1))
    assert small.run("b")
    small.keep("d")
    assert {entry.key for entry in small.cache.entries()} == {"entry", "b", "d"}
    tiny = Place(place.path, 4096)
    tiny.keep("e")
    assert "PVH_CACHE_SIZE" in tiny.said[0]
    assert Place(place.path, 0).cache.clear() == 3
    assert [path.name for path in place.path.iterdir()] == [".lock"]


def test_a_second_of_the_same_key_changes_nothing(place: Place) -> None:
    before = (place.path / "entry" / "ram").stat().st_ino
    place.keep()
    assert (place.path / "entry" / "ram").stat().st_ino == before
    assert place.said == []


def test_the_key_is_of_all_that_decides_how_a_guest_boots(tmp_path: Path) -> None:
    kernel, initrd = tmp_path / "kernel", tmp_path / "initrd"
    kernel.write_bytes(b"kernel")
    initrd.write_bytes(b"initrd")
    base = BootOptions(modules=(ModuleSpec(str(initrd)),))

    def of(**changes: Any) -> str:
        values: dict[str, Any] = {name: getattr(base, name) for name in BootOptions.__slots__} | changes
        return key(str(kernel), BootOptions(**values), "emulator")

    first = of()
    shutil.copy(kernel, tmp_path / "same")
    assert key(str(tmp_path / "same"), base, "emulator") == first
    assert of(timeout=3.0, core="x", engine="emulator") == first
    others = [of(memory=1 << 30), of(vcpus=2), of(cmdline="x"), of(platform="bare"), of(modules=())]
    others += [of(modules=(ModuleSpec(str(initrd), "words"),)), key(str(kernel), base, "kvm")]
    kernel.write_bytes(b"kernem")
    others.append(of())
    initrd.write_bytes(b"initre")
    others.append(of())
    assert len({first, *others}) == 1 + len(others)


@pytest.mark.parametrize(("said", "size"), [("1G", 1 << 30), ("512MiB", 512 << 20), ("0", 0), ("", 2 << 30)])
def test_its_limit_is_a_size_as_people_write_it(said: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVH_CACHE_SIZE", said)
    assert limit() == size


def test_a_limit_that_is_no_size_is_not_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVH_CACHE_SIZE", "foo")
    with pytest.raises(UsageError, match="PVH_CACHE_SIZE: 'foo' is no size: write 512M or 2GiB"):
        limit()
