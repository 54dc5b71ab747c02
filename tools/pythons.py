"""Try the package on every other Python that this machine has: `python -m tools.pythons`.

For each of 3.11 to 3.14 found on PATH or among pyenv's, an environment under .cache/pythons gets the package as pip
installs it, and must inspect the hello guest and boot it on the emulator. A line each; status 1 if one failed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HELLO = str(ROOT / "tests" / "guests" / "hello.elf")
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


def smoke(python: str, home: Path) -> None:
    """Install the package beside nothing else, and use it."""
    output(python, "-m", "venv", "--clear", home)
    output(home / "bin" / "python", "-m", "pip", "install", "--quiet", ROOT)
    verdict = json.loads(output(home / "bin" / "pvh", "inspect", HELLO, "--json"))["verdict"]
    said = output(home / "bin" / "pvh", "run", "--engine", "emulator", "--timeout", "60", HELLO)
    if (verdict, said) != ("bootable", "Hello from PVH\n"):
        raise RuntimeError(f"{HELLO}: verdict {verdict}, output {said!r}")


def main() -> int:
    """Try them all; at least one must be there."""
    tried = failed = 0
    for version in VERSIONS:
        python = interpreter(version)
        if python is None:
            print(f"Python {version}: not on this machine", flush=True)
            continue
        tried += 1
        try:
            smoke(python, ROOT / ".cache" / "pythons" / version)
            print(f"Python {version}: inspect and run work", flush=True)
        except RuntimeError as error:
            failed += 1
            print(f"Python {version}: {error}", flush=True)
    return 1 if failed or not tried else 0


if __name__ == "__main__":
    sys.exit(main())
