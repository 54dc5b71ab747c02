"""Campaigns over the guests with several processors: many runs in a row, and what an idle guest costs.

    python -m bench.accept [--runs N] [--nested]

Emulator: smp with 1, 2, 4, 8 and 32 vCPUs, N times each; storm on each engine that is here, and the share of a CPU that
this process takes while the guest sleeps. --nested: smp with 1, 2 and 4 vCPUs, N times each, on the genuine KVM inside
QEMU (tests/smp/inside.py), and there the campaigns of tests/fuzz, most of them shorter than here. Writes
bench/results/accept-smp-DATE.json (or accept-nested-DATE.json); the status is 1 if a run was wrong or an idle guest was
not idle.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from bench.startup import ROOT, surroundings

sys.path.insert(0, str(ROOT / "tests"))

VCPUS = (1, 2, 4, 8, 32)
NESTED = (1, 2, 4)
CAMPAIGNS_NESTED = {
    "vcpufuzz:16": "run_vcpu_fuzz --calls 100000 --each 5000",
    "anycall:2": "run_any_calls --calls 100000 --each 5000",
    "chanmask:2": "run_chanmask --events 1000000 --burst 256",
}
MOST_IDLE = 0.02  # of a processor
SECONDS_NESTED = 3000.0


def here(runs: int) -> Iterator[dict[str, Any]]:
    """Run smp on the emulator and storm on all engines."""
    from smp.boot import boot, engine_of
    from smp.expect import STORM, summary
    from smp.test_smp_guests import Idleness

    emulator = engine_of("emulator")[0]
    assert emulator
    for vcpus in VCPUS:
        for _ in range(runs):
            begin = time.monotonic()
            said, outcome = boot("smp", emulator, vcpus)
            wrong = [] if said == summary(vcpus) and outcome.ending == "poweroff" else [outcome.reason, said]
            yield {"guest": f"smp:{vcpus}", "wrong": wrong, "seconds": time.monotonic() - begin}
    for name in ("emulator", "kvm"):
        engine = engine_of(name)[0]
        if engine is None:
            continue
        idle, begin = Idleness(), time.monotonic()
        said, outcome = boot("storm", engine, 3, hear=idle.hear)
        wrong = [] if said == STORM and outcome.ending == "poweroff" else [outcome.reason, said]
        if not 0 <= idle.share <= MOST_IDLE:
            wrong.append("the idle guest was not idle")
        seconds = time.monotonic() - begin
        yield {"guest": f"storm:3, {name}", "wrong": wrong, "seconds": seconds, "busy while idle": round(idle.share, 4)}


def inside(script: str, *arguments: str) -> str:
    """Run a script on the genuine KVM; return what it said."""
    words = ["-m", "tools.nested.run", "--timeout", str(SECONDS_NESTED), "--", script, *arguments]
    return subprocess.run([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False).stdout


def nested(runs: int) -> Iterator[dict[str, Any]]:
    """Run smp on the genuine KVM, and a campaign of random calls."""
    guests = [f"smp:{vcpus}" for vcpus in NESTED] * runs
    found = [json.loads(line) for line in inside("tests/smp/inside.py", *guests).splitlines() if line.startswith("{")]
    yield from found
    if len(found) != len(guests):
        yield {"guest": "all", "wrong": [f"{len(found)} of {len(guests)} runs ended"], "seconds": 0.0}
    for guest, words in CAMPAIGNS_NESTED.items():
        said = inside("tests/fuzz/inside.py", *words.split())
        report = json.loads(said[said.index("{") :]) if "{" in said else {"faults": [said], "seconds": 0.0}
        yield {"guest": guest, "wrong": report["faults"], "seconds": report["seconds"], "report": report}


def summaries(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return for each guest how often it ran, what was wrong, how long it took."""
    table: dict[str, Any] = {}
    for name in dict.fromkeys(result["guest"] for result in results):
        own = [result for result in results if result["guest"] == name]
        took = [result["seconds"] for result in own]
        seconds = [round(value, 2) for value in (min(took), statistics.median(took), max(took))]
        table[name] = {"runs": len(own), "wrong": [r["wrong"] for r in own if r["wrong"]], "seconds": seconds}
        table[name] |= {key: own[0][key] for key in ("busy while idle", "report") if key in own[0]}
    return table


def main(argv: list[str]) -> int:
    """Run a campaign."""
    parser = argparse.ArgumentParser(prog="python -m bench.accept", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--nested", action="store_true")
    options = parser.parse_args(argv)
    table = summaries(list(nested(options.runs) if options.nested else here(options.runs)))
    report = {**surroundings("bench.accept", argv), "guests (seconds: min, median, max)": table}
    text = json.dumps(report, indent=1)
    kind = "nested" if options.nested else "smp"
    path = ROOT / "bench" / "results" / f"accept-{kind}-{time.strftime('%Y-%m-%d')}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 1 if any(row["wrong"] for row in table.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
