"""Make what Debian makes on a machine of its own: a kernel's initrd, and a GRUB with files inside.

    python -m tools.debian     the initrd into .cache/specimens, GRUB's tools into .cache/debian; prints their paths

The programs are Debian's own, unpacked and run where they lie: mkinitramfs with the packages below as its root (chroot;
a user who is not root gets one by a user namespace), grub-mkimage with the libraries beside it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".cache" / "debian"
INITRD = ROOT / ".cache" / "specimens" / "initrd-cloud-6.1"
GRUB = HOME / "grub"

# mkinitramfs, the programs its scripts call, and those it copies into the initrd.
MAKES_INITRD = [
    *("linux-image-cloud-amd64", "initramfs-tools", "initramfs-tools-core", "linux-base", "klibc-utils", "libklibc"),
    *("busybox-static", "udev", "kmod", "cpio", "zstd", "e2fsprogs", "logsave", "util-linux", "mount", "dpkg"),
    *("bash", "coreutils", "dash", "debianutils", "findutils", "gawk", "grep", "gzip", "libc-bin", "mawk", "sed"),
    *("base-files", "base-passwd"),
]
ITS_LIBRARIES = [
    *("libc6", "libacl1", "libattr1", "libblkid1", "libbz2-1.0", "libcap2", "libcom-err2", "libcrypt1", "libext2fs2"),
    *("libgcc-s1", "libgmp10", "libkmod2", "liblz4-1", "liblzma5", "libmd0", "libmount1", "libpcre2-8-0"),
    *("libselinux1", "libsmartcols1", "libssl3", "libtinfo6", "libudev1", "libuuid1", "libzstd1", "zlib1g"),
]
MAKES_GRUB = ["grub-xen-bin", "grub-xen-host", "grub-common", "libc6", "libdevmapper1.02.1", "liblzma5"]
# boot is in the kernel of this GRUB
MODULES = ("memdisk", "tar", "normal", "linux", "ls", "halt")


def initrd() -> Path:
    """Return the initrd of Debian's cloud kernel, as initramfs-tools makes it with its defaults."""
    if not INITRD.exists():
        root = _unpacked("initrd", MAKES_INITRD + ITS_LIBRARIES)
        for folder in ("dev", "proc", "run", "sys", "tmp", "var/tmp"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "dev/null").touch()
        (root / "etc/fstab").touch()
        version = next((root / "lib/modules").iterdir()).name
        # What the packages' own scripts would have done when they were installed.
        script = f"ln -sf mawk /usr/bin/awk && ldconfig && depmod {version} && mkinitramfs -o /initrd {version}"
        inside = ["chroot", str(root), "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-ec", script]
        subprocess.run(inside if not os.geteuid() else ["unshare", "-r", *inside], check=True, stdout=sys.stderr)
        INITRD.parent.mkdir(exist_ok=True)
        shutil.move(root / "initrd", INITRD)
        shutil.rmtree(root)  # 300 MB that are of no more use
    return INITRD


def grub_tools() -> Path:
    """Return the root that holds grub-mkimage, its modules for the PVH platform, and GRUB as a PV guest."""
    return _unpacked("grub", MAKES_GRUB)


def grub_with(files: Mapping[str, Path], target: Path) -> None:
    """Write a GRUB for PVH with the files in its memdisk."""
    memdisk = target.with_suffix(".tar")
    with tarfile.open(memdisk, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, path in files.items():
            tar.add(path, name)
    libraries = f"{GRUB}/lib/x86_64-linux-gnu:{GRUB}/usr/lib/x86_64-linux-gnu"
    program = [f"{GRUB}/lib64/ld-linux-x86-64.so.2", "--library-path", libraries, f"{GRUB}/usr/bin/grub-mkimage"]
    words = ["-O", "i386-xen_pvh", "-d", f"{GRUB}/usr/lib/grub/i386-xen_pvh", "-p", "(memdisk)", "-m", str(memdisk)]
    subprocess.run([*program, *words, "-o", str(target), *MODULES], check=True)


def _unpacked(name: str, packages: list[str]) -> Path:
    """Return the folder that packages are unpacked in, made whole or not at all."""
    folder = HOME / name
    if not folder.exists():
        partial = folder.with_name(f"{name}.part")
        shutil.rmtree(partial, ignore_errors=True)
        subprocess.run([sys.executable, ROOT / "tools/obtain.py", "--unpack", partial, *packages], check=True)
        partial.rename(folder)
    return folder


def main() -> int:
    """Make both, and say of each that failed why; 0 when both are there."""
    failed = 0
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two makes at once would share the folders
        for make in (initrd, grub_tools):
            try:
                print(make())
            except subprocess.CalledProcessError as error:
                print(f"debian: {make.__name__}: {error} (its own message is above)", file=sys.stderr)
                failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
