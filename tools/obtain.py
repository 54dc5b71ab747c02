#!/usr/bin/env python3
"""Obtain real images: take them out of Debian packages, fetched by the ordinary package client.

    obtain.py [NAME...]             specimens into .cache/specimens; all of them when none is named. Prints their paths
    obtain.py --unpack DIR PKG...   packages, unpacked below DIR; --only PATTERN picks files
    obtain.py --command NAME=PKG... commands that must be on PATH: installed when root, named otherwise

It works as root and as a user: apt's state, lists and archives are private folders under .cache/apt; the system's stay
as they are. Only what is missing is fetched. Standard library only, so that it runs before anything is set up.
"""

from __future__ import annotations

import argparse
import fcntl
import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
RELEASE = "bookworm"  # the tests know its images: 6.1 without and 6.12 with PHYS32_RELOC, LZ4 and zstd payloads
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
STALE = 24 * 3600  # seconds after which package lists are fetched anew before a download


class Unobtainable(Exception):
    """Something cannot be had here; the text says what and why."""


@dataclass(frozen=True)
class Specimen:
    """A file inside a package.

    name     its name in .cache/specimens
    package  a package, or a regular expression where the package's name holds a version (the highest is taken)
    member   a pattern for its path in the package; None: the package file itself
    suite    the suffix of the release it comes from
    """

    name: str
    package: str
    member: str | None
    suite: str = ""


SPECIMENS = (
    Specimen("vmlinuz-cloud-6.1", "linux-image-cloud-amd64", "./boot/vmlinuz-*"),
    Specimen("vmlinuz-generic-6.1", "linux-image-amd64", "./boot/vmlinuz-*"),
    Specimen("vmlinuz-6.12", "linux-image-cloud-amd64", "./boot/vmlinuz-*", "-backports"),
    Specimen("vmlinuz-generic-6.12", "linux-image-amd64", "./boot/vmlinuz-*", "-backports"),
    Specimen("grub-i386-xen_pvh.bin", "grub-xen-host", "./usr/lib/grub-xen/grub-i386-xen_pvh.bin"),
    Specimen("grub-x86_64-xen.bin", "grub-xen-host", "./usr/lib/grub-xen/grub-x86_64-xen.bin"),
    Specimen("xen-shim", r"xen-utils-[0-9.]+", "./usr/lib/xen-*/boot/xen-shim"),
    Specimen("xen.gz", r"xen-hypervisor-[0-9.]+-amd64", "./boot/xen-*.gz"),
    Specimen("busybox", "busybox-static", "./bin/busybox"),
    Specimen("OVMF.fd", "ovmf", "./usr/share/ovmf/OVMF.fd"),
    Specimen("some.deb", "linux-image-cloud-amd64", None),
)


def say(text: str) -> None:
    """Tell a person what is going on, beside the paths on standard output."""
    print(f"obtain: {text}", file=sys.stderr, flush=True)


def output(*command: str) -> str:
    """Return what a command prints; raise Unobtainable with its last words when it fails."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Unobtainable(f"{command[0]} is not on this machine: Debian's package tools are needed") from error
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise Unobtainable(f"{command[0]}: {words[-1]}")
    return done.stdout


def os_release() -> dict[str, str]:
    """Return /etc/os-release as a mapping."""
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {key: value.strip("\"'") for key, _, value in (line.partition("=") for line in lines)}


def source_lines(targets: str, here: str, release: str) -> list[str]:
    """Return apt source lines for a release (and its backports), on the mirrors that this machine uses for its own.

    targets  what `apt-get indextargets` prints: URI, release and component a line
    here     the release that this machine runs
    """
    names = {here, "stable", "oldstable", "testing", "unstable", "sid", RELEASE}
    found: dict[str, str] = {}
    for line in targets.splitlines():
        uri, suite, component = line.split()
        name, dash, part = suite.partition("-")
        if name in names and component == "main" and part in ("", "updates", "security", "backports"):
            found.setdefault(dash + part, uri)
    if "" not in found:
        raise Unobtainable("apt is configured without a Debian mirror (no main component of a Debian release)")
    found.setdefault("-backports", found[""])
    signed = f" signed-by={KEYRING}" if KEYRING.exists() else ""
    return [f"deb [arch=amd64{signed}] {uri} {release}{part} main" for part, uri in found.items()]


class Apt:
    """The package client, with its state in private folders."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.release = RELEASE
        self._fresh = False
        for folder in ("lists/partial", "cache/archives/partial", "archives"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        (home / "status").touch()  # no package counts as installed: what is here must not change what is chosen

    def options(self, suite: str = "") -> list[str]:
        """Return the options that point apt to the private folders."""
        settings = {
            "APT::Architecture": "amd64",
            "APT::Sandbox::User": "root",  # _apt may not enter a checkout in somebody's home
            "APT::Default-Release": self.release + suite if suite else "",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Dir::Cache": str(self.home / "cache"),
            "Dir::Cache::pkgcache": "pkgcache.bin",  # container images switch these two off
            "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
            "Dir::Etc::SourceList": str(self.home / "sources.list"),
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State::Lists": str(self.home / "lists"),
            "Dir::State::Status": str(self.home / "status"),
        }
        return [word for key, value in settings.items() if value for word in ("-o", f"{key}={value}")]

    def update(self) -> None:
        """Fetch the package lists, unless that was done today."""
        stamp = self.home / "updated"
        if self._fresh or (stamp.exists() and time.time() - stamp.stat().st_mtime < STALE):
            self.release = stamp.read_text(encoding="utf-8") if stamp.exists() else self.release
            return
        targets = output(
            "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"
        )
        system = os_release()
        here = system.get("VERSION_CODENAME", "")
        choices = [RELEASE, here] if system.get("ID") == "debian" and here not in ("", RELEASE) else [here or RELEASE]
        for self.release in choices:
            lines = source_lines(targets, here, self.release)
            (self.home / "sources.list").write_text("\n".join(lines) + "\n", encoding="utf-8")
            say(f"fetching the package lists of {self.release}")
            run("apt-get", *self.options(), "update", *quiet())
            if self._names(SPECIMENS[0].package):
                stamp.write_text(self.release, encoding="utf-8")
                break
            say(f"no {SPECIMENS[0].package} in {self.release}, or its lists could not be fetched")
        self._fresh = True

    def forget_old_lists(self) -> bool:
        """Have the lists fetched again before they are next used; False if that was done in this run."""
        if self._fresh:
            return False
        (self.home / "updated").unlink(missing_ok=True)
        return True

    def _names(self, pattern: str) -> list[str]:
        """Return packages whose whole name matches, the lowest version in the name first."""
        stem = re.split(r"[\\\[]", pattern, maxsplit=1)[0]
        names = output("apt-cache", *self.options(), "pkgnames", stem).split()
        return sorted((name for name in names if re.fullmatch(pattern, name)), key=numbers)

    def resolve(self, pattern: str, suite: str = "") -> str:
        """Return the package that a pattern, or a kernel's meta package, stands for."""
        self.update()
        names = self._names(pattern)
        if not names:
            raise Unobtainable(f"no package {pattern} in {self.release}{suite}")
        shown = output("apt-cache", *self.options(suite), "show", "--no-all-versions", names[-1])
        kernel = re.search(r"^Depends: (linux-image-[0-9]\S*)", shown, re.MULTILINE)
        return kernel.group(1) if kernel else names[-1]

    def download(self, package: str) -> Path:
        """Return the package file, fetched unless it is there."""
        present = sorted((self.home / "archives").glob(f"{package}_*.deb"))
        if present:
            return present[-1]
        self.update()
        say(f"fetching {package}")
        folder = self.home / "cache" / "archives" / "partial"
        run("apt-get", *self.options(), "download", package, *quiet(), folder=folder)
        fetched = sorted(folder.glob(f"{package}_*.deb"))
        if not fetched:
            raise Unobtainable(f"{package} cannot be fetched (apt's message is above)")
        return Path(shutil.move(fetched[-1], self.home / "archives" / fetched[-1].name))

    def obtain(self, pattern: str) -> Path:
        """Return the package file of what a pattern, or a kernel's meta package, stands for."""
        return self.download(self.resolve(pattern))


def numbers(name: str) -> list[int]:
    """Return the numbers in a name, to sort 4.9 before 4.17."""
    return [int(word) for word in re.findall(r"\d+", name)]


def quiet() -> list[str]:
    """Return apt's options for plain output; on a terminal it shows its own progress."""
    return [] if sys.stderr.isatty() else ["-qq"]


def run(*command: str, folder: Path | None = None) -> None:
    """Run a command that reports for itself, on standard error. Its result shows in what it leaves behind."""
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, cwd=folder, check=False)


def members(package: Path, patterns: list[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """Give each regular file of a package whose path ("./boot/...") matches a pattern: its path, and a stream."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as tar:
        if tar.stdout is None:
            raise Unobtainable("dpkg-deb gives no output")
        with tarfile.open(fileobj=tar.stdout, mode="r|") as every:
            for member in every:
                source = every.extractfile(member) if member.isfile() else None
                if source is not None and any(fnmatch.fnmatch(member.name, pattern) for pattern in patterns):
                    yield member.name, source


def write(source: IO[bytes], target: Path) -> None:
    """Copy a stream into a file, whole or not at all."""
    unfinished = target.with_name(target.name + ".part")
    with unfinished.open("wb") as out:
        shutil.copyfileobj(source, out)
    unfinished.replace(target)


def extract(package: Path, pattern: str, target: Path) -> None:
    """Copy the one file of a package that matches."""
    target.unlink(missing_ok=True)
    for _, source in members(package, [pattern]):
        write(source, target)
    if not target.exists():
        raise Unobtainable(f"{package.name} holds no {pattern}")


def obtain(apt: Apt, specimen: Specimen, folder: Path) -> Path:
    """Return the path of a specimen, made unless it is there.

    A kernel of another version than the name says gets a name of its own: no test takes it for the one it knows.
    """
    target = folder / specimen.name
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    package = specimen.package if specimen.member is None else apt.resolve(specimen.package, specimen.suite)
    stem, dash, wanted = specimen.name.rpartition("-")
    kernel = re.match(r"linux-image-(\d+\.\d+)\.", package)
    if kernel and kernel.group(1) != wanted:
        target = folder / (stem + dash + kernel.group(1))
        say(f"{apt.release}{specimen.suite} has Linux {kernel.group(1)}, not {wanted}: it becomes {target.name}")
    fetched = apt.download(package)
    if specimen.member is None:
        shutil.copy(fetched, target)
    else:
        extract(fetched, specimen.member, target)
    return target


def obtain_all(apt: Apt, names: list[str], folder: Path) -> int:
    """Obtain specimens by name, print their paths, and say of each that failed why."""
    known = {specimen.name: specimen for specimen in SPECIMENS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Unobtainable(f"no specimen {unknown[0]}; there are {', '.join(known)}")
    failed = 0
    for name in names or known:
        try:
            print(retried(apt, partial(obtain, apt, known[name], folder)), flush=True)
        except Unobtainable as error:
            say(f"{name}: {error}")
            failed += 1
    return failed


def retried(apt: Apt, act: Callable[[], Path]) -> Path:
    """Act; if it fails on old package lists, act again on new ones (they may name packages replaced since)."""
    try:
        return act()
    except Unobtainable:
        if not apt.forget_old_lists():
            raise
        return act()


def unpack(apt: Apt, packages: list[str], patterns: list[str], folder: Path) -> None:
    """Unpack packages below a folder: whole, or the files that match a pattern."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages:
        fetched = retried(apt, partial(apt.obtain, package))
        if not patterns:
            output("dpkg-deb", "-x", str(fetched), str(folder))
        for name, source in members(fetched, patterns) if patterns else ():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            write(source, target)


def install(pairs: list[str]) -> None:
    """See that commands are on PATH; install their packages into the system when root."""
    missing = {package for name, _, package in (pair.partition("=") for pair in pairs) if not shutil.which(name)}
    if not missing:
        return
    words = ["apt-get", "install", "--yes", "--no-install-recommends", *sorted(missing)]
    if os.geteuid():
        raise Unobtainable(f"needed on this machine: {', '.join(sorted(missing))}. Type: sudo {' '.join(words)}")
    say(f"installing {', '.join(sorted(missing))}")
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run("apt-get", "update", *quiet())
    run(*words, *quiet())
    absent = [pair for pair in pairs if not shutil.which(pair.partition("=")[0])]
    if absent:
        raise Unobtainable(f"apt-get did not bring {', '.join(absent)} (its message is above)")


def main(argv: list[str]) -> int:
    """Run the tool; 0 when everything asked for is there."""
    parser = argparse.ArgumentParser(prog="obtain.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--unpack", metavar="DIR", type=Path, help="unpack packages below DIR")
    parser.add_argument("--only", metavar="PATTERN", action="append", default=[], help="unpack just these files")
    parser.add_argument("--command", action="store_true", help="see that commands are on PATH: NAME=PACKAGE")
    parser.add_argument("names", nargs="*", help="specimens, packages or commands")
    options = parser.parse_args(argv)
    CACHE.mkdir(exist_ok=True)
    try:
        if options.command:
            install(options.names)
            return 0
        with (CACHE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two makes at once would share apt's folders
            apt = Apt(CACHE / "apt")
            if options.unpack:
                unpack(apt, options.names, options.only, options.unpack)
                return 0
            return 1 if obtain_all(apt, options.names, CACHE / "specimens") else 0
    except Unobtainable as error:
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
