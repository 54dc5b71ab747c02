"""Files that a command writes."""

from __future__ import annotations

import sys

from pvh.errors import UsageError


def write_file(path: str, data: bytes) -> None:
    """Write a whole file; - is standard output. Raises UsageError where that cannot be."""
    if path == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        return
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        hint = "name a file in a folder you may write"
        raise UsageError(f"cannot write it: {reason}", path=path, hint=hint) from None
