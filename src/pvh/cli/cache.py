"""`pvh cache`: the guests that `pvh run --exec` keeps booted."""

from __future__ import annotations

import json
import time

from pvh.cache import Cache, folder, limit
from pvh.cli.plain import parse
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from pvh.cache import Entry
    from pvh.cli.plain import Notes

ABOUT = {
    "description": "Guests that are booted already, for pvh run --exec to go on from.",
    "epilog": """examples:
  pvh cache list
  pvh cache clear
  PVH_CACHE_SIZE=0 pvh run vmlinuz --exec true

The cache is in PVH_CACHE, by default pvh in XDG_CACHE_HOME or ~/.cache, and takes at most PVH_CACHE_SIZE bytes, by
default 2 GiB: the entries used least lately go first. Each is of one kernel, initrd, set of options and release of pvh,
and lives until the host restarts. Guests that go on from one have the kernel addresses of its boot in common.""",
}


def declare(parser: ArgumentParser | Notes) -> None:
    """Declare the options."""
    parser.add_argument("action", choices=("list", "clear"), help="what to do")
    parser.add_argument("--json", action="store_true", help="for a machine to read")


def main(argv: list[str]) -> int:
    """Run the command."""
    asked = parse(declare, argv, prog="pvh cache", **ABOUT)
    cache = Cache(print)
    if asked.action == "clear":
        count = cache.clear()
        print(json.dumps({"removed": count}) if asked.json else f"{count} removed from {folder()}")
        return 0
    entries = cache.entries()
    if asked.json:
        names = ("key", "kernel", "cmdline", "memory", "vcpus", "size", "used")
        told = [{name: getattr(entry, name) for name in names} for entry in entries]
        print(json.dumps({"folder": folder(), "limit": limit(), "entries": told}, indent=2))
        return 0
    for entry in entries:
        print(_line(entry))
    total = sum(entry.size for entry in entries)
    print(f"{len(entries)} in {folder()}: {total >> 20} of {limit() >> 20} MiB")
    return 0


def _line(entry: Entry) -> str:
    ago = max(0, int(time.time() - entry.used)) // 60
    of = f"{entry.memory >> 20} MiB, {entry.vcpus} vCPU" if entry.kernel else "damaged"
    return f"{entry.key[:12]}  {entry.size >> 20:4} MiB  used {ago} min ago  {entry.kernel}  {of}  {entry.cmdline}"
