"""tools/obtain.py: which mirror, which package, which file; without a network (the package client is played)."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import obtain

BOOKWORM = """http://m.example/debian/ bookworm main
http://m.example/debian/ bookworm-updates main
http://m.example/debian/ bookworm contrib
http://s.example/ bookworm-security main
http://other.example/ nodistro main
http://pg.example/ bookworm-pgdg main
"""


def suites(lines: list[str]) -> list[tuple[str, str]]:
    return [(line.split()[-3], line.split()[-2]) for line in lines]


def test_backports_come_from_the_mirror_that_is_configured() -> None:
    assert suites(obtain.source_lines(BOOKWORM, "bookworm", "bookworm")) == [
        ("http://m.example/debian/", "bookworm"),
        ("http://m.example/debian/", "bookworm-updates"),
        ("http://s.example/", "bookworm-security"),
        ("http://m.example/debian/", "bookworm-backports"),
    ]


def test_a_later_debian_asks_its_mirror_for_the_release_that_the_tests_know() -> None:
    lines = obtain.source_lines("http://m.example/debian/ trixie main\n", "trixie", "bookworm")
    assert ("http://m.example/debian/", "bookworm") in suites(lines)


def test_without_a_debian_mirror_it_says_so() -> None:
    with pytest.raises(obtain.Unobtainable, match="without a Debian mirror"):
        obtain.source_lines("http://other.example/ nodistro main\n", "bookworm", "bookworm")


class Played:
    """apt-cache, apt-get and dpkg-deb, by what they answer: a meta package names its kernel, a package holds /boot."""

    def __init__(self, kernel: str, packages: str) -> None:
        self.kernel = kernel
        self.packages = packages
        self.asked: list[str] = []

    def output(self, *command: str) -> str:
        self.asked.append(" ".join(command))
        if "indextargets" in command:
            return BOOKWORM
        return self.packages if "pkgnames" in command else f"Package: x\nDepends: {self.kernel} (= 1)\n"

    def run(self, *command: str, folder: Path | None = None) -> None:
        self.asked.append(" ".join(command))
        if folder is not None:
            name = command[command.index("download") + 1]
            with tarfile.open(folder / f"{name}_1_amd64.deb", "w") as tar:
                member = tarfile.TarInfo(f"./boot/vmlinuz-{name}")
                member.size = 3
                tar.addfile(member, io.BytesIO(b"abc"))


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Played]:
    dpkg_deb = tmp_path_factory.mktemp("bin") / "dpkg-deb"
    dpkg_deb.write_text('#!/bin/sh\nexec cat "$2"\n', encoding="utf-8")  # the packages played are bare tar files
    dpkg_deb.chmod(0o755)
    monkeypatch.setenv("PATH", str(dpkg_deb.parent), prepend=os.pathsep)

    def begin(kernel: str, packages: str) -> Played:
        played = Played(kernel, packages)
        monkeypatch.setattr(obtain, "output", played.output)
        monkeypatch.setattr(obtain, "run", played.run)
        return played

    return begin


def test_a_meta_package_stands_for_its_kernel(tmp_path: Path, play: Callable[[str, str], Played]) -> None:
    play("linux-image-6.1.0-9-cloud-amd64", "linux-image-cloud-amd64\n")
    path = obtain.obtain(obtain.Apt(tmp_path / "apt"), obtain.SPECIMENS[0], tmp_path / "out")
    assert path == tmp_path / "out" / "vmlinuz-cloud-6.1"
    assert path.read_bytes() == b"abc"


def test_another_kernel_gets_a_name_of_its_own(tmp_path: Path, play: Callable[[str, str], Played]) -> None:
    play("linux-image-6.12.3-cloud-amd64", "linux-image-cloud-amd64\n")
    path = obtain.obtain(obtain.Apt(tmp_path / "apt"), obtain.SPECIMENS[0], tmp_path / "out")
    assert path.name == "vmlinuz-cloud-6.12"


def test_the_highest_version_in_a_name_is_taken(tmp_path: Path, play: Callable[[str, str], Played]) -> None:
    play("nothing", "xen-utils-4.9\nxen-utils-4.17\nxen-utils-4.17-dbg\nxen-utils-common\n")
    assert obtain.Apt(tmp_path).resolve(r"xen-utils-[0-9.]+") == "xen-utils-4.17"


def test_lists_of_today_are_not_fetched_again(tmp_path: Path, play: Callable[[str, str], Played]) -> None:
    played = play("linux-image-6.1.0-9-cloud-amd64", "linux-image-cloud-amd64\n")
    for _ in range(2):
        obtain.Apt(tmp_path).update()
    assert sum(" update" in line for line in played.asked) == 1


def test_a_package_without_the_file_leaves_no_specimen(tmp_path: Path, play: Callable[[str, str], Played]) -> None:
    play("linux-image-6.1.0-9-cloud-amd64", "ovmf\n")
    specimen = obtain.Specimen("OVMF.fd", "ovmf", "./usr/share/ovmf/OVMF.fd")
    with pytest.raises(obtain.Unobtainable, match="holds no"):
        obtain.obtain(obtain.Apt(tmp_path / "apt"), specimen, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_there_needs_no_package_client(root: Path, tmp_path: Path) -> None:
    tool = tmp_path / "tools" / "obtain.py"
    tool.parent.mkdir()
    tool.write_bytes((root / "tools" / "obtain.py").read_bytes())
    present = tmp_path / ".cache" / "specimens" / "xen-shim"
    present.parent.mkdir(parents=True)
    present.touch()
    words = [sys.executable, str(tool), "xen-shim", "ovmf"]
    done = subprocess.run(words, env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no specimen ovmf; there are vmlinuz-cloud-6.1" in done.stderr
    done = subprocess.run([*words[:3], "xen.gz"], env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, f"{present}\n")
    assert "apt-get is not on this machine" in done.stderr
