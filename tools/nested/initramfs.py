"""Make the first file system of the machine inside: Debian's Python, KVM's modules, this checkout's code and needs.

What comes from Debian is obtained and archived once (.cache/nested); the code is archived anew at each run, behind it.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import capstone
from tools.nested import cpio, init

ROOT = Path(__file__).resolve().parent.parent.parent
HOME = ROOT / ".cache" / "nested"
KERNEL = HOME / "kernel"
# The interpreter, and what ctypes, mmap and the standard library's decompressors need; OpenSSL and the like stay out.
PYTHON: list[str] = ["python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"]
LIBRARIES: list[str] = ["libc6", "libexpat1", "zlib1g", "libffi8", "libbz2-1.0", "liblzma5"]
# What `pvh run` needs to find a kernel in a bzImage; the disassembler, which finds hypercalls in it, is this Python's.
CODEC: list[str] = ["python3-lz4", "liblz4-1"]
PACKAGES = PYTHON + LIBRARIES + CODEC
USERLAND = HOME / f"root-{hashlib.sha256(' '.join(PACKAGES).encode()).hexdigest()[:16]}"
PACKAGED = USERLAND / "usr/lib/python3/dist-packages"
CAPSTONE = Path(capstone.__file__).parent
CODE = ("src/pvh", "tests", "bench", "tools")
# Parts of the library that no program here imports, by path below lib/python3.11: they would only be unpacked.
UNUSED = (
    "asyncio",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "test",
    "tkinter",
    "turtle.py",
    "unittest",
    "xmlrpc",
)


def kernel() -> Path:
    """Return Debian's generic kernel, obtained with its KVM modules unless they are here."""
    if not KERNEL.exists():
        patterns = ["./boot/vmlinuz-*", *(f"*/{name}.ko*" for name in init.MODULES)]
        only = [word for pattern in patterns for word in ("--only", pattern)]
        _obtain(KERNEL, ["linux-image-amd64"], only)
    return next(KERNEL.glob("boot/vmlinuz-*"))


def build(words: list[str], extra: tuple[Path, ...], stage: Path) -> bytes:
    """Return the initramfs for a script and its arguments.

    Files of `extra` lie in /work inside. `stage` is a folder to be made, where the code is copied to.
    """
    for folder in CODE:
        if (ROOT / folder).exists():
            shutil.copytree(ROOT / folder, stage / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in extra:
        shutil.copy(path, stage / path.name)
    (stage / "arguments").write_text("\0".join(words), encoding="utf-8")
    base = _base()
    _compile(stage)
    return base + cpio.archive(cpio.tree(stage, "work"))


def _base() -> bytes:
    """Return the archive of all that does not change from run to run."""
    recipe = b"".join(Path(str(module.__file__)).read_bytes() for module in (sys.modules[__name__], init, cpio))
    recipe += capstone.__version__.encode()
    cached = HOME / f"base-{hashlib.sha256(recipe).hexdigest()[:16]}.cpio"
    if not cached.exists():
        if not USERLAND.exists():
            _obtain(USERLAND, PACKAGES, [])
        kernel()
        for name in UNUSED:
            path = USERLAND / "usr/lib/python3.11" / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        left_out = shutil.ignore_patterns("__pycache__", "include")
        shutil.copytree(CAPSTONE, PACKAGED / "capstone", ignore=left_out, dirs_exist_ok=True)
        for folder in (USERLAND / "usr/lib/python3.11", PACKAGED):
            _compile(folder)
        unfinished = cached.with_suffix(".part")
        unfinished.write_bytes(cpio.archive(_base_entries()))
        unfinished.rename(cached)
    return cached.read_bytes()


def _base_entries() -> Iterator[cpio.Entry]:
    for name in ("dev", "modules"):
        yield cpio.Entry(name, stat.S_IFDIR | 0o755)
    for name in init.MODULES:
        for path in KERNEL.rglob(f"{name}.ko*"):
            data = path.read_bytes()
            yield cpio.Entry(
                f"modules/{name}.ko", stat.S_IFREG | 0o644, lzma.decompress(data) if path.suffix == ".xz" else data
            )
    yield cpio.Entry("init", stat.S_IFREG | 0o755, Path(init.__file__).read_bytes())
    for part in ("lib", "lib64"):
        yield from cpio.tree(USERLAND / part, part)
    for part in ("usr/bin/python3.11", "usr/lib/x86_64-linux-gnu", "usr/lib/python3.11", "usr/lib/python3"):
        yield from cpio.parents(part)
        yield from cpio.tree(USERLAND / part, part)


def _compile(folder: Path) -> None:
    """Compile to bytecode with the very interpreter that will run it: inside, each module would cost a second."""
    libraries = f"{USERLAND}/lib/x86_64-linux-gnu:{USERLAND}/usr/lib/x86_64-linux-gnu"
    python = [f"{USERLAND}/lib64/ld-linux-x86-64.so.2", "--library-path", libraries, f"{USERLAND}/usr/bin/python3.11"]
    words = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(folder)]
    subprocess.run([*python, *words], env={**os.environ, "PYTHONHOME": f"{USERLAND}/usr"}, check=True)


def _obtain(folder: Path, packages: list[str], options: list[str]) -> None:
    """Unpack packages into a folder, whole or not at all."""
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    command = [sys.executable, str(ROOT / "tools/obtain.py"), "--unpack", str(partial), *options, *packages]
    subprocess.run(command, check=True)
    partial.rename(folder)
