"""Whatever a guest executes, the monitor neither fails nor keeps it from its end."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from conformance.monitored import monitored
from conformance.relies import written
from pvh.plan.options import MIB, BootOptions

# A stack, CLD, defined flags and registers, so that chance gets beyond its first instructions.
_READY = "bc00182000 fc 6a02 9d b900000000 ba00100000 be00102000 bf00112000 bd00122000 b807000000"
_UD2 = b"\x0f\x0b"


@pytest.mark.parametrize("seed", range(40))
def test_random_code(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    ready = bytes.fromhex(_READY) if seed % 4 else b""
    kernel = written(tmp_path, "chance.elf", ready + chance.randbytes(60) + _UD2)
    _, outcome, _ = monitored(Path(kernel), BootOptions(timeout=5.0, memory=64 * MIB), limit=3000)
    assert outcome.ending != "engine", outcome.reason


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("fc b9ffffffff bf00000000 f3aa", "REP STOS over all of memory"),
        ("fc b9ffffffff be00000000 bf00000001 f3a4", "REP MOVS over all of memory, onto itself"),
        ("fc b900001000 bf00000dfe f3ab", "REP STOS into what is no RAM"),
        ("fd b900010000 bf00102000 f3ab", "REP STOS backwards"),
        ("fc b9001f0000 bf00002000 f3aa", "REP STOS over its own code"),
        ("0f0115fdffffff", "LGDT at the end of 4 GiB"),
        ("bcfeffffff 60 61 c3", "PUSHA and POPA around 4 GiB"),
    ],
)
def test_code_that_goes_to_the_edge(code: str, why: str, tmp_path: Path) -> None:
    kernel = written(tmp_path, "edge.elf", bytes.fromhex(code) + _UD2)
    _, outcome, _ = monitored(Path(kernel), BootOptions(timeout=2.0, memory=64 * MIB), limit=3000)
    assert outcome.ending != "engine", (why, outcome.reason)
    assert outcome.cpu, "the deadline came, and the processor could not be stopped"
