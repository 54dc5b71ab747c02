"""Build the tests' guests: every *.S here becomes a tiny ELF next to it, byte for byte the same each time.

    python tests/guests/build.py [name.S ...]

A source may say in its first lines what to make of it, `# build: FILE CLASS [SCRIPT]` (paths relative to this folder,
class 32 or 64, a linker script); without that, name.S becomes name.elf, class 64, by guest.ld. A source that neither
says so nor includes pvh.inc is no guest but bare code of its own room.
The binutils that made the committed files is recorded in binutils.txt.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass

HERE = os.path.dirname(os.path.abspath(__file__))
RECORD = os.path.join(HERE, "binutils.txt")
_DIRECTIVE = re.compile(r"^# build: (\S+) (32|64)(?: (\S+))?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Target:
    """One ELF: the source's name, the output relative to this folder, the ELF class, the linker script."""

    source: str
    output: str
    bits: int
    script: str

    @property
    def committed(self) -> str:
        """Absolute path of the committed ELF."""
        return os.path.normpath(os.path.join(HERE, self.output))


def targets(names: list[str] | None = None) -> list[Target]:
    """Return what the named sources (default: all) are built to."""
    found: list[Target] = []
    for name in sorted(names or (name for name in os.listdir(HERE) if name.endswith(".S"))):
        with open(os.path.join(HERE, name), encoding="utf-8") as stream:
            text = stream.read()
        asked: list[tuple[str, str, str]] = _DIRECTIVE.findall(text)
        if not asked and '.include "pvh.inc"' in text:
            asked = [(name[:-2] + ".elf", "64", "")]
        found += [Target(name, output, int(bits), script or "guest.ld") for output, bits, script in asked]
    return found


def binutils() -> str:
    """Return the assembler's and linker's version, or "" when there are none."""
    try:
        tools = [
            subprocess.run([tool, "--version"], capture_output=True, text=True, check=True) for tool in ("as", "ld")
        ]
    except OSError:
        return ""
    return " / ".join(tool.stdout.splitlines()[0] for tool in tools)


def build(target: Target, output: str) -> None:
    """Assemble and link one guest. Raises CalledProcessError with the tools' own words on stderr."""
    emulation = {32: "elf_i386", 64: "elf_x86_64"}[target.bits]
    with tempfile.TemporaryDirectory() as scratch:
        made = os.path.join(scratch, "guest.o")
        # --noexecstack and --no-ld-generated-unwind-info keep distributions' defaults from adding headers.
        subprocess.run(["as", f"--{target.bits}", "--noexecstack", "-o", made, target.source], cwd=HERE, check=True)
        subprocess.run(
            ["ld", "-m", emulation, "-nmagic", "-static", "--build-id=none", "--no-warn-rwx-segments", "--discard-all",
             "-T", target.script, "-o", output, made],
            cwd=HERE, check=True,
        )  # fmt: skip
    os.chmod(output, 0o644)


def main(names: list[str]) -> int:
    """Rebuild the named sources (all when none is named) and record the tools."""
    for target in targets(names):
        build(target, target.committed)
        print(f"{target.output}: {os.path.getsize(target.committed)} bytes, ELF{target.bits}")
    with open(RECORD, "w", encoding="utf-8") as stream:
        stream.write(binutils() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
