"""What the guests with several processors print (tests/guests/{smp,storm,selfmod}.S).

Without pytest, for the nested KVM's runner.
"""

from __future__ import annotations

STORM = """\
storm.failures=0
storm.other-done=1
storm.other-failures=0
storm.last-failure=00000000
storm.up=0
storm.is_up=1
storm.runs=1
storm.down=0
storm.is_up=0
storm.runs=0
storm.idle
storm.end
"""
CALLBACK = """\
callback.extint.taken=23
callback.masked.taken=23
callback.ap.taken=23
callback.asleep.taken=43
callback.early=0
callback.ap.early=0
callback.lost=0
callback.ap.lost=0
callback.asleep.lost=0
"""
SELFMOD = """\
selfmod.int3.wrong=0
selfmod.ipi.wrong=0
selfmod.torn=0
selfmod end
"""


def summary(vcpus: int, *, pae: bool = True) -> str:
    """Return all that smp must print (tests/guests/smp.S): the APs' modes in turn, and the sums."""
    modes = ("real", "flat", "paged", "pae" if pae else "compat", "compat", "long")
    aps = min(vcpus - 1, 31)
    lines = [f"counted.{mode}={vcpus}" for mode in ("real", "flat", "long")]
    blocks = "private=60000 ipis=2 down=0 canary=01234567"
    lines += [f"ap.{ap}={modes[(ap - 1) % 6]} {blocks}" for ap in range(1, aps + 1)]
    return "\n".join([*lines, f"smp vcpus={vcpus} shared={60000 * aps} ipis={2 * aps} ok", ""])
