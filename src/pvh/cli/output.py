"""Files that a command writes."""

from __future__ import annotations

import os
import stat
import sys

from pvh.errors import UsageError
from pvh.host import FLAGS


def keep(inputs: list[str | None], outputs: dict[str, str | None]) -> None:
    """Raise UsageError for an output that would replace an input, or another output."""
    kept = [("an input", path) for path in inputs if path and path != "-"]
    for option, path in outputs.items():
        if path is None:
            continue
        for what, other in kept:
            if path == other or _same(path, other):
                raise UsageError(f"{option} would overwrite {what} of this run", path=path, hint="name another file")
        kept.append((f"the file of {option}", path))


def _same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):  # one is not there, or is no path at all
        return False


def claim_file(path: str) -> None:
    """Open a file that a long command will write, and leave it as it is: now is the time to find out.

    Raises UsageError where it cannot be written.
    """
    if path == "-" or _is_pipe(path):  # whose reader would take this for the end
        return
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | FLAGS, 0o666))
    except OSError as error:
        raise _unwritable(path, error) from None


def _is_pipe(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


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
        raise _unwritable(path, error) from None


def _unwritable(path: str, error: OSError) -> UsageError:
    reason = (error.strerror or str(error)).lower()
    return UsageError(f"cannot write it: {reason}", path=path, hint="name a file in a folder you may write")
