"""`pvh --version` beside `python -c pass`, interleaved: `python -m bench.version PVH [ROUNDS]`, into bench/results.

PVH is the command of a wheel that pip installed, such as .cache/pythons/3.11/bin/pvh. An editable installation is no
measure: its path file is read first, and its modules may have no compiled form.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def measured(command: list[str]) -> tuple[float, float]:
    """Return wall clock and processor time of a command, in ms."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - start, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return wall * 1e3, used * 1e3


def main() -> int:
    """Measure and write."""
    pvh, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100
    python = str(Path(pvh).parent / "python")
    commands = {"python -c pass": [python, "-c", "pass"], "pvh --version": [pvh, "--version"]}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            times[name].append(measured(command))
    rows = {
        name: {
            "wall min": min(wall for wall, _ in all_),
            "wall median": statistics.median(wall for wall, _ in all_),
            "cpu mean": statistics.fmean(used for _, used in all_),
        }
        for name, all_ in times.items()
    }
    base, ours = rows.values()
    ratios = {kind: ours[kind] / base[kind] for kind in base}
    told = {"rounds": rounds, "load": os.getloadavg(), "python": sys.version.split()[0], "ms": rows, "ratio": ratios}
    path = RESULTS / f"version-{dt.datetime.now(tz=dt.UTC).date()}.json"
    path.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
