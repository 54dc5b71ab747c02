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

Kind = Literal["console", "hypercall", "blocks", "long-mode", "ends"]

_KINDS = "console:REGEX, hypercall:NAME, instructions:N, long-mode, ends:HOW"
_TAIL = 4096  # characters of console output that a match may reach back


@dataclass(frozen=True, slots=True)
class Milestone:
    """One thing to wait for.

    console    text matches it as a regular expression
    hypercall  the name of the call
    blocks     how many basic blocks were executed
    long-mode  the processor runs 64-bit code
    ends       how the run ends
    """

    kind: Kind
    value: str = ""

    def __str__(self) -> str:
        said = {
            "console": f"it says /{self.value}/",
            "hypercall": f"it calls {self.value}",
            "blocks": f"it executed {self.value} blocks",
            "long-mode": "it runs 64-bit code",
            "ends": f"it ends by {self.value}",
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
    if kind in ("instructions", "blocks") and value.isascii() and value.isdigit():
        # The emulator counts blocks of code between branches; some five instructions are one.
        return Milestone("blocks", str(max(1, int(value) // (5 if kind == "instructions" else 1))))
    if text == "long-mode":
        return Milestone("long-mode")
    if kind == "ends":
        if value not in STATUS and value != "exit-port":
            raise UsageError("--until: no such end", found=value, wanted=", ".join((*STATUS, "exit-port")))
        return Milestone("ends", value)
    raise UsageError("--until: no such milestone", found=text, wanted=_KINDS)


class Progress:
    """How far a run has come on the way through some milestones, one after the other."""

    def __init__(self, way: Sequence[Milestone]) -> None:
        self._way = list(way)
        self._text = ""

    @property
    def next(self) -> Milestone | None:
        """What is waited for; None once all is reached."""
        return self._way[0] if self._way else None

    def _passes(self, kind: Kind) -> str | None:
        """Return what is waited for, if it is of that kind."""
        return self._way[0].value if self._way and self._way[0].kind == kind else None

    def said(self, data: bytes) -> None:
        """Take console output."""
        self._text += data.decode(errors="replace")
        while (pattern := self._passes("console")) is not None and (found := re.search(pattern, self._text)):
            self._text = self._text[found.end() :]
            del self._way[0]
        self._text = self._text[-_TAIL:]

    def exited(self, event: Exit) -> None:
        """Take an exit."""
        if isinstance(event, Hypercall) and NAMES.get(event.number) == self._passes("hypercall"):
            del self._way[0]

    def executed(self, blocks: int, bits: int) -> None:
        """Take how much code was executed, and the width of the code that runs."""
        wanted = self._passes("blocks")
        if wanted is not None and blocks >= int(wanted):
            del self._way[0]
        if bits == 64 and self._passes("long-mode") is not None:
            del self._way[0]

    def ended(self, ending: str) -> None:
        """Take how the run ended."""
        if self._passes("ends") == ending:
            del self._way[0]
