"""What runs below the guests: Xen, the kernel of its control domain (dom0), and the first file system of that.

All of it comes from Debian's packages and is made once (.cache/oracle). The guests follow in an archive of their own,
behind the first: Linux unpacks one after the other.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.nested import cpio

ROOT = Path(__file__).resolve().parent.parent.parent
HOME = ROOT / ".cache" / "oracle"
USERLAND = HOME / "root"
LINUX = HOME / "linux"
INIT = Path(__file__).with_name("init.sh")

XEN = [r"xen-hypervisor-[0-9.]+-amd64", r"xen-utils-[0-9.]+", "xenstore-utils", "busybox-static"]
# What the programs below need, by their own dependencies.
LIBRARIES = [
    *("libc6", "libxenmisc[0-9.]+", "libxencall1", "libxendevicemodel1", "libxenevtchn1", "libxenforeignmemory1"),
    *("libxengnttab1", "libxenhypfs1", "libxenstore4", "libxentoolcore1", "libxentoollog1", "libyajl2"),
    *("libext2fs2", "libcom-err2", "libgcc-s1", "libuuid1", "liblzma5", "libzstd1", "zlib1g"),
]
MODULES = ("xen-privcmd", "xen-evtchn", "xen-gntdev", "xen-gntalloc", "xenfs")  # xenfs needs xen-privcmd
XEN_PROGRAMS = ("xl", "xenstored", "xenconsoled", "xen-init-dom0", "xen-hvmctx")
APPLETS = (
    *("awk", "cp", "date", "dd", "insmod", "ln", "mkdir", "mount", "poweroff", "printf", "sh", "sleep", "stty", "tar"),
    *("uname", "usleep"),
)
FOLDERS = ("dev", "proc", "run", "sys", "tmp", "var/lib", "var/log")


def xen() -> Path:
    """Return the hypervisor, as a plain ELF: QEMU's loader does not unpack."""
    plain = HOME / "xen"
    if not plain.exists():
        packed = next(_userland().glob("boot/xen-*.gz"))
        unfinished = plain.with_suffix(".part")
        with gzip.open(packed) as source, unfinished.open("wb") as target:
            shutil.copyfileobj(source, target)
        unfinished.rename(plain)
    return plain


def kernel() -> Path:
    """Return Debian's generic kernel, obtained with its modules for Xen unless they are here."""
    if not LINUX.exists():
        patterns = ["./boot/vmlinuz-*", *(f"*/{name}.ko*" for name in MODULES)]
        _obtain(LINUX, ["linux-image-amd64"], [word for pattern in patterns for word in ("--only", pattern)])
    return next(LINUX.glob("boot/vmlinuz-*"))


def base() -> bytes:
    """Return the archive of all that does not change from run to run."""
    recipe = b"".join(path.read_bytes() for path in (Path(__file__), INIT))
    cached = HOME / f"base-{hashlib.sha256(recipe).hexdigest()[:16]}.cpio"
    if not cached.exists():
        kernel()
        _userland()
        for old in HOME.glob("base-*"):
            old.unlink()
        unfinished = cached.with_suffix(".part")
        unfinished.write_bytes(cpio.archive(_entries()))
        unfinished.rename(cached)
    return cached.read_bytes()


def _userland() -> Path:
    if not USERLAND.exists():
        _obtain(USERLAND, XEN + LIBRARIES, [])
    return USERLAND


def _entries() -> Iterator[cpio.Entry]:
    yield _file("init", INIT, 0o755)
    yield from _folder("etc/xen")
    yield cpio.Entry("etc/xen/xl.conf", stat.S_IFREG | 0o644)  # xl complains without one
    for folder in FOLDERS:
        yield from _folder(folder)
    yield from _folder("modules")
    for name in MODULES:
        yield _file(f"modules/{MODULES.index(name)}-{name}.ko", next(LINUX.rglob(f"{name}.ko")))
    yield from _folder("bin")
    yield _file("bin/busybox", USERLAND / "bin/busybox", 0o755)
    for name in APPLETS:
        yield cpio.Entry(f"bin/{name}", stat.S_IFLNK | 0o777, b"busybox")
    yield from _folder("usr/bin")
    yield _file("usr/bin/xenstore-ls", USERLAND / "usr/bin/xenstore-ls", 0o755)
    yield from _folder("usr/lib/xen/bin")
    for name in XEN_PROGRAMS:
        yield _file(f"usr/lib/xen/bin/{name}", next(USERLAND.glob(f"usr/lib/xen-*/bin/{name}")), 0o755)
    yield from _libraries()


def _libraries() -> Iterator[cpio.Entry]:
    """Give the shared libraries; glibc's converters and the parts of other programs stay out."""
    yield from cpio.tree(USERLAND / "lib64", "lib64")
    for part in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"):
        yield from _folder(part)
        for entry in cpio.tree(USERLAND / part, part):
            if ".so" in entry.path and Path(entry.path).parent == Path(part):
                yield entry


def _folder(path: str) -> Iterator[cpio.Entry]:
    """Give a folder and all above it."""
    yield from cpio.parents(f"{path}/inside")


def _file(path: str, source: Path, mode: int = 0o644) -> cpio.Entry:
    return cpio.Entry(path, stat.S_IFREG | mode, source.read_bytes())


def _obtain(folder: Path, packages: list[str], options: list[str]) -> None:
    """Unpack packages into a folder, whole or not at all."""
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    command = [sys.executable, str(ROOT / "tools/obtain.py"), "--unpack", str(partial), *options, *packages]
    subprocess.run(command, check=True)
    partial.rename(folder)
