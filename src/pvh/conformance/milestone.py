"""Milestones: what tells that a kernel booted. `--until` takes them as text."""

from __future__ import annotations

import re

from pvh.abi.hypercall import NAMES
from pvh.engines.exits import Hypercall
from pvh.errors import UsageError
from pvh.hints import TYPE_CHECKING, Literal
from pvh.outcome import STATUS
from pvh.record import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pvh.engines.exits import Exit

Kind = Literal["console", "hypercall", "instructions", "long-mode", "ends", "unbroken"]

BAD_ENDS = ("triple-fault", "crash", "engine")

_KINDS = "console:REGEX, hypercall:NAME, instructions:N, long-mode, ends:HOW"
HALT = "halt"  # the end of a run whose processors have all halted with interrupts off, or went down
_TAIL = 4096  # characters of console output that a match may reach back


@dataclass(frozen=True, slots=True)
class Milestone:
    """One thing to wait for.

    console       text matches it as a regular expression
    hypercall     the name of the call
    instructions  how many the first processor executed
    long-mode     it runs 64-bit code
    ends          how the run ends; with how() for more than a word
    unbroken      it comes to no bad end while it is watched: of a kernel that does nothing that can be seen
    """

    kind: Kind
    value: str = ""

    @property
    def needs_emulator(self) -> bool:
        """Whether other engines do not tell when it is reached."""
        return self.kind in ("instructions", "long-mode")

    def __str__(self) -> str:
        said = {
            "console": f"it says /{self.value}/",
            "hypercall": f"it calls {self.value}",
            "instructions": f"it executed {self.value} instructions",
            "long-mode": "it runs 64-bit code",
            "ends": "it halts for good" if self.value == HALT else f"it ends by {self.value}",
            "unbroken": "it comes to no bad end",
        }
        return said[self.kind]


def parse(text: str) -> Milestone:
    """Return the milestone of a text. Raises UsageError for what is none."""
    kind, _, value = text.partition(":")
    if kind == "console" and value:
        try:
            re.compile(value)
        except re.error as error:
            raise UsageError(f"--until: no regular expression: {error}", found=value) from None
        return Milestone("console", value)
    if kind == "hypercall":
        if value not in NAMES.values():
            raise UsageError("--until: no such hypercall", found=value, wanted=", ".join(NAMES.values()))
        return Milestone("hypercall", value)
    if kind == "instructions" and value.isascii() and value.isdigit():
        return Milestone("instructions", str(int(value)))
    if text == "long-mode":
        return Milestone("long-mode")
    if kind == "ends":
        port, _, status = value.partition("=")
        if port == "exit-port" and (not status or (status.isascii() and status.isdigit())):
            return Milestone("ends", how(port, int(status or 0), halted=False))
        if value not in STATUS and value != HALT:
            wanted = ", ".join((*STATUS, HALT, "exit-port[=STATUS]"))
            raise UsageError("--until: no such end", found=value, wanted=wanted)
        return Milestone("ends", value)
    raise UsageError("--until: no such milestone", found=text, wanted=_KINDS)


def how(ending: str, status: int, *, halted: bool) -> str:
    """Return how a run ended, as a milestone has it.

    Xen powers a domain off whose processors have all halted with interrupts off; that is how most kernels panic. And
    the exit port takes a status of failure.

    >>> how("exit-port", 0, halted=False), how("exit-port", 3, halted=False), how("poweroff", 0, halted=True)
    ('exit-port', 'exit-port=3', 'halt')
    """
    if halted:
        return HALT
    return f"{ending}={status}" if ending == "exit-port" and status else ending


def is_telling(way: Sequence[Milestone]) -> bool:
    """Whether a run that went this way shows more than that nothing went wrong."""
    return any(milestone.kind != "unbroken" for milestone in way)


class Progress:
    """How far a run has come on the way through some milestones, one after the other."""

    def __init__(self, way: Sequence[Milestone]) -> None:
        self._way = list(way)
        self._text = ""
        self._counted = 0

    @property
    def next(self) -> Milestone | None:
        """What is waited for; None once all is reached."""
        return self._way[0] if self._way else None

    def _passes(self, kind: Kind) -> str | None:
        """Return what is waited for, if it is of that kind."""
        return self._way[0].value if self._way and self._way[0].kind == kind else None

    def _pass(self) -> None:
        """Go past the first; and past the next ones, if those are numbers of instructions that were executed before."""
        del self._way[0]
        self.counted(self._counted)

    def said(self, data: bytes) -> None:
        """Take console output."""
        self._text += data.decode(errors="replace")
        while (pattern := self._passes("console")) is not None and (found := re.search(pattern, self._text)):
            self._text = self._text[found.end() :]
            self._pass()
        self._text = self._text[-_TAIL:]

    def exited(self, event: Exit) -> None:
        """Take an exit."""
        if isinstance(event, Hypercall) and NAMES.get(event.number) == self._passes("hypercall"):
            self._pass()

    def counted(self, instructions: int) -> None:
        """Take how many instructions were executed."""
        self._counted = instructions
        while (wanted := self._passes("instructions")) is not None and instructions >= int(wanted):
            del self._way[0]

    def executed(self, bits: int) -> None:
        """Take the width of the code that runs."""
        if bits == 64 and self._passes("long-mode") is not None:
            self._pass()

    def ended(self, ending: str, status: int, *, halted: bool) -> None:
        """Take how the run ended."""
        unbroken = self._passes("unbroken") is not None and ending not in BAD_ENDS
        if unbroken or self._passes("ends") == how(ending, status, halted=halted):
            del self._way[0]
