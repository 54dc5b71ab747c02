"""The Finding record: a clause that a kernel violates, and the evidence."""

from __future__ import annotations

from pvh.hints import Literal
from pvh.record import dataclass

Grade = Literal["violation", "note"]
Origin = Literal["profile", "monitor", "file"]


@dataclass(frozen=True, slots=True)
class Instruction:
    """Where a kernel did something: linear address, symbol (`name+0x10`, "" if there is none), bytes, disassembly."""

    address: int
    symbol: str = ""
    code: bytes = b""
    disassembly: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What shows that a clause is violated, or is worth knowing of it.

    clause  id of the clause (conformance/clauses.py)
    what    one sentence for a person, without a full stop: the cause first
    grade   violation, or note: something that a person wants to know and that breaks nothing, such as a register saved
    origin  a boot that failed under a profile, the first-read monitor, or the file itself
    at      the instruction that did it, where it is known
    profile name of the profile under which it was seen; "" for the file
    """

    clause: str
    what: str
    grade: Grade = "violation"
    origin: Origin = "monitor"
    at: Instruction | None = None
    profile: str = ""
