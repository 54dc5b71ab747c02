"""Try the package on every other Python that this machine has: `python -m tools.pythons`.

A source distribution is built from the checkout, and a wheel from what it holds. For each of 3.11 to 3.14 found on PATH
or among pyenv's, an empty environment under .cache/pythons gets the wheel, and one more the source distribution; the
installed package is used there, with what it brings itself. A line each; status 1 if one failed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".cache" / "pythons"
# What is said by commands, those of NEED_KERNEL with a kernel.
USES = {"--version": "pvh ", "plan": "start_info", "export qemu": "qemu-system-x86_64", "completion bash": "complete"}
NEED_KERNEL = ("plan", "export qemu")
VERSIONS = ("3.11", "3.12", "3.13", "3.14")


def output(*command: str | Path) -> str:
    """Return what a command prints; raise with its words when it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def interpreter(version: str) -> str | None:
    """Return a working interpreter: on PATH, where a version manager's shim may stand for none, or among pyenv's."""
    managed = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions").glob(f"{version}.*/bin/python")
    for candidate in (f"python{version}", *map(str, managed)):
        try:
            return output(candidate, "-c", "import sys, ensurepip; print(sys.executable)").strip()
        except (FileNotFoundError, RuntimeError):
            continue
    return None


def build(python: str) -> tuple[Path, Path]:
    """Build the source distribution, and the wheel from it; return both. Raises RuntimeError for a poor one."""
    home, made = PLACE / "build", PLACE / "dist"
    shutil.rmtree(made, ignore_errors=True)
    output(python, "-m", "venv", "--clear", home)
    output(home / "bin" / "python", "-m", "pip", "install", "--quiet", "build", "twine")
    output(home / "bin" / "python", "-m", "build", "--outdir", made, ROOT)
    (source,), (wheel,) = made.glob("*.tar.gz"), made.glob("*.whl")
    output(home / "bin" / "python", "-m", "twine", "check", "--strict", source, wheel)
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    tracked = output("git", "-C", str(ROOT), "ls-files").splitlines()
    lost = {name for name in tracked if not name.startswith(".")} - held
    if lost:
        raise RuntimeError(f"{source.name} lacks {', '.join(sorted(lost)[:5])}")
    return source, wheel


def smoke(python: str, home: Path, package: Path) -> None:
    """Install the package beside nothing else, and use it."""
    output(python, "-m", "venv", "--clear", home)
    output(home / "bin" / "python", "-m", "pip", "install", "--quiet", package)
    kernel = output(home / "bin" / "python", "-c", "import pvh.demo; print(pvh.demo.demo_path())").strip()
    if not kernel.startswith(str(home)):
        raise RuntimeError(f"the demo kernel is at {kernel}, not in {home}")
    pvh = home / "bin" / "pvh"
    verdict = json.loads(output(pvh, "inspect", kernel, "--json"))["verdict"]
    said = output(pvh, "run", "--engine", "emulator", "--timeout", "60", kernel)
    if verdict != "bootable" or not (said.startswith("Hello from PVH") and said.endswith("Powering off\n")):
        raise RuntimeError(f"{kernel}: verdict {verdict}, output {said!r}")
    for words, wanted in USES.items():
        if wanted not in (found := output(pvh, *words.split(), *([kernel] if words in NEED_KERNEL else []))):
            raise RuntimeError(f"pvh {words}: {wanted!r} is not in {found[:200]!r}")
    page = home / "share" / "man" / "man1" / "pvh.1"
    if not page.read_text().startswith(".TH"):
        raise RuntimeError(f"{page} is no manual page")


def main() -> int:
    """Try them all; at least one must be there."""
    tried = failed = 0
    packages: tuple[Path, ...] = ()
    for version in VERSIONS:
        python = interpreter(version)
        if python is None:
            print(f"Python {version}: not on this machine", flush=True)
            continue
        tried += 1
        try:
            if not packages:
                packages = build(python)
                smoke(python, PLACE / "source", packages[0])
                print("the source distribution: installed and used", flush=True)
            smoke(python, PLACE / version, packages[1])
            print(f"Python {version}: the wheel, installed and used", flush=True)
        except RuntimeError as error:
            failed += 1
            print(f"Python {version}: {error}", flush=True)
    return 1 if failed or not tried else 0


if __name__ == "__main__":
    sys.exit(main())
