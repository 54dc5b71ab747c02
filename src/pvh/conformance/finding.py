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
class Read:
    """What an instruction read where a boot parts from one that does not fail.

    place      a register, or what stands at that address: `the type of entry 5 of the memory map`
    by         the instruction
    value      None: what the processor or Xen gave, which was not recorded
    address    physical; None: no memory, or none that is mapped
    elsewhere  what the same instruction read in the other boot, each value once; some of them, if there are `more`
    """

    place: str
    by: Instruction
    value: int | None = None
    address: int | None = None
    elsewhere: tuple[int, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class Parting:
    """Where a boot that fails last left the ways that the boot as libxenguest does it takes.

    at      the instruction that decided it: which set the flags that the branch tests, or the branch itself
    branch  the instruction behind which it goes another way
    reads   what `at` read; and where that is a register, what it was loaded from, if that was close by
    fatal   it does not go another way: `branch` raised an exception there that nobody handled
    """

    at: Instruction
    branch: Instruction
    reads: tuple[Read, ...] = ()
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """What shows that a clause is violated, or is worth knowing of it.

    clause  id of the clause (conformance/clauses.py)
    what    one sentence for a person, without a full stop: the cause first
    grade   violation, or note: something that a person wants to know and that breaks nothing, such as a register saved
    origin  a boot that failed under a profile, the first-read monitor, or the file itself
    at      the instruction that did it; of a profile's boot, where that ended; None: not known
    profile name of the profile under which it was seen; "" for the file
    parting where that boot parts from one that does not fail, if that was looked for and found
    """

    clause: str
    what: str
    grade: Grade = "violation"
    origin: Origin = "monitor"
    at: Instruction | None = None
    profile: str = ""
    parting: Parting | None = None

    @property
    def culprit(self) -> Instruction | None:
        """The instruction to look at first, if it is known which one broke the clause."""
        if self.origin == "profile":
            return self.parting.at if self.parting else None
        return self.at if self.origin == "monitor" and self.grade == "violation" else None
