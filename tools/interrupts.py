"""Ctrl-C at random moments: `python -m tools.interrupts [--trials N] -- COMMAND ...` runs a pvh command over and over.

Each trial sends SIGINT to the process, to its group as a terminal does, or twice, and looks how it ends: with status
130 (by the signal, before a command has begun; its own, if it was done), within a second, with no process left and no
traceback. What hangs is shown by py-spy, if that is on the path, thread by thread. The exit status is 1 if any trial
went wrong. In its first 15 ms or so the interpreter itself starts, and tells of an interrupt as it likes.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_LONGEST = 20.0  # seconds that a hanging process is given


def _session(sid: int) -> list[int]:
    """Return the processes of a session that are no zombies."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _parent, _group, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(session) == sid and state != "Z":
                found.append(int(entry.name))
    return found


def _show(sid: int) -> None:
    """Print where every thread of a session's processes is."""
    for pid in _session(sid):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        print(f"--- {pid}: {command}", (Path(f"/proc/{pid}/wchan")).read_text(), flush=True)
        if py_spy := shutil.which("py-spy"):
            subprocess.run([py_spy, "dump", "--pid", str(pid)], check=False)


def _send(process: subprocess.Popen[bytes], how: str, chooser: random.Random) -> None:
    try:
        if how == "parent":
            process.send_signal(signal.SIGINT)
            return
        os.killpg(process.pid, signal.SIGINT)
        if how == "twice":
            time.sleep(chooser.uniform(0.0, 0.05))
            os.killpg(process.pid, signal.SIGINT)
    except ProcessLookupError:
        pass  # it was done


def _trial(command: list[str], how: str, delay: float, chooser: random.Random) -> str:
    """Return what was wrong, "" if nothing."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, bufsize=0
    )
    time.sleep(delay)
    over = process.poll() is not None
    begun = time.monotonic()
    _send(process, how, chooser)
    wrong = []
    try:
        process.wait(_LONGEST)
    except subprocess.TimeoutExpired:
        _show(process.pid)
        wrong.append("it hangs")
    took = time.monotonic() - begun
    time.sleep(0.05)  # what was killed last
    if left := _session(process.pid):
        wrong.append(f"processes are left: {left}")
        os.killpg(process.pid, signal.SIGKILL)
    said = process.communicate()[1].decode(errors="replace")
    if took > 1:
        wrong.append(f"it took {took:.2f} s")
    if process.returncode not in (130, -signal.SIGINT) and not over:
        wrong.append(f"status {process.returncode}")
    if "Traceback" in said or "Exception ignored" in said:
        wrong.append(said)
    return ", ".join(wrong) + (" (it was over)" if over and wrong else "")


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", dest="least", type=float, default=0.05, metavar="S")
    parser.add_argument("--to", dest="most", type=float, default=2.0, metavar="S")
    parser.add_argument("command", nargs="+", help="words of a pvh command")
    parsed = parser.parse_args()
    chooser = random.Random(parsed.seed)
    command = [str(Path(sys.executable).with_name("pvh")), *parsed.command]
    failed = 0
    for index in range(parsed.trials):
        how = ("parent", "group", "twice")[index % 3]
        delay = chooser.uniform(parsed.least, parsed.most)
        if wrong := _trial(command, how, delay, chooser):
            failed += 1
            print(f"trial {index}, {how} after {delay:.3f} s: {wrong}", flush=True)
    print(f"{parsed.trials} trials, {failed} went wrong")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
