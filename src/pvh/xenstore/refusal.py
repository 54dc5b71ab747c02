"""How a request is refused."""

from __future__ import annotations

from pvh.abi.xenstore_wire import ERRORS


class Refusal(Exception):
    """A request cannot be met. error is an errno that has a name on the wire."""

    def __init__(self, error: int) -> None:
        super().__init__(ERRORS[error])
        self.error = error
