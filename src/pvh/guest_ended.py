"""The error that has an outcome, and so lies above the others."""

from __future__ import annotations

from pvh.errors import PvhError, said_last
from pvh.outcome import Outcome


class GuestEnded(PvhError):
    """A guest ended before it did what a program waited for.

    outcome  how it ended
    said     what it had said last, as text; it may be empty

    >>> with pvh.boot(pvh.demo_path()) as guest:
    ...     try:
    ...         guest.console.expect("login:", timeout=10)
    ...     except pvh.GuestEnded as ended:
    ...         print(ended.outcome.ending, "Powering off" in ended.said)
    poweroff True
    """

    code = "guest-ended"

    def __init__(self, cause: str, outcome: Outcome, said: str = "") -> None:
        super().__init__(f"{cause}: {outcome.ending}, {outcome.reason}", found=said_last(said) if said else None)
        self.outcome = outcome
        self.said = said
