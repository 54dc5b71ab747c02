"""Runs inside (tools/nested): ends in the way that its argument says."""

from __future__ import annotations

import os
import signal
import sys
import time


def main(how: str, *rest: str) -> int:
    """End so."""
    if how == "exit":
        return int(rest[0])
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "sleep":
        time.sleep(600)
    raise RuntimeError("as told")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
