"""The pvh command: one module per subcommand, no logic beyond options and rendering."""

from __future__ import annotations

import gc
import os
import sys

from pvh.cli import ctrl_c
from pvh.errors import PvhError

COMMANDS = {
    "inspect": "what is this file, and does it boot by this ABI?",
    "plan": "where will every byte go?",
    "run": "boot a kernel",
    "check": "does a kernel rely on more than the ABI promises?",
    "export": "what boots the same thing in another VMM?",
    "cache": "guests that run --exec keeps booted",
    "probe": "what does another VMM hand to a kernel?",
    "doctor": "which engines are usable here, and why not?",
    "completion": "commands and options for bash, zsh, fish",
}

STATUS = """exit status:
  0    done; the guest powered off     13   deadline passed, or the guest hangs
  2    wrong usage, unreadable file    14   the engine or the host failed
  10   the guest asked for a reboot    20   refused: no kernel, or too large
  11   the guest reported a crash      21   no usable engine
  12   triple fault                    130  interrupted
  15   check: a clause is violated, or the kernel does not boot
A guest that writes a byte to port 0xf4 ends the run with that status."""


def usage() -> str:
    """Return what `pvh --help` says."""
    from shutil import get_terminal_size  # only asked for here

    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:{width}}  {what}" for name, what in COMMANDS.items())
    text = (
        "usage: pvh COMMAND [...]\n\nBuild, boot, explain and check kernels of Xen's HVM direct boot ABI (PVH)."
        f"\n\n{listed}\n\n`pvh COMMAND --help` tells more; `pvh --version` the version.\n\n{STATUS}"
    )
    return _narrowed(text, get_terminal_size().columns)


def _narrowed(text: str, width: int) -> str:
    """Fold lines that are too long for a terminal, below their last column's begin where they have columns."""
    from re import match
    from textwrap import wrap

    folded: list[str] = []
    for line in text.split("\n"):
        pair = match(r"(  \d+ +\S.*?\S) {2,}(\d+ +.*)$", line) if len(line) > width else None
        for part in (pair[1], f"  {pair[2]}") if pair else (line,):
            cells = match(r"  \S+ +", part)
            folded += wrap(part, width, subsequent_indent=" " * len(cells[0]) if cells else "") or [""]
    return "\n".join(folded)


def program() -> int:
    """Be the whole of a process: run main() on its arguments and return the status to exit with at once."""
    # Hardly anything a run makes is garbage in a cycle. To look for it while modules are imported, and again in all
    # there is when the process ends, takes 8 ms of a short run's 40.
    gc.set_threshold(100_000)
    ctrl_c.take()
    try:
        status = main()
    finally:
        ctrl_c.give_back()  # argparse exits
    if status == ctrl_c.STATUS:
        try:
            sys.stdout.flush()
        finally:
            os._exit(status)  # a thread may still be in an engine, whose memory the interpreter's end would take away
    gc.freeze()
    return status


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status. No exception of ours, of the host or of Ctrl-C gets out."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        try:
            status = _run(arguments)
        except PvhError as error:
            _say(error, machine_readable="--json" in arguments)
            status = error.status
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("pvh: interrupted", file=sys.stderr)
        return ctrl_c.STATUS
    except BrokenPipeError:
        _give_output_up()  # whoever read it went away: not our failure
        return 141
    except (OSError, MemoryError) as error:
        print(f"pvh: the host failed: {str(error) or 'out of memory'}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            _give_output_up()  # it goes to a full disk, perhaps
        return 14
    return status


def _run(arguments: list[str]) -> int:
    name = arguments[0] if arguments else "--help"
    if name == "help" and arguments[1:]:
        name, arguments = arguments[1], [arguments[1], "--help"]
    if name in ("--help", "-h", "help"):
        print(usage())
        return 0 if arguments else 2
    if name in ("--version", "-V"):
        from pvh import __version__  # only asked for here

        print(f"pvh {__version__}")
        return 0
    if name not in COMMANDS:
        print(f"pvh: no command {name!r}; there are {', '.join(COMMANDS)} (pvh --help)", file=sys.stderr)
        return 2
    from importlib import import_module  # not for --version, of whose time it is a twentieth

    status: int = import_module(f"pvh.cli.{name}").main(arguments[1:])
    return status


def _give_output_up() -> None:
    """Have what is left of standard output go nowhere: the interpreter's end would try to write it once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(error: PvhError, *, machine_readable: bool) -> None:
    if machine_readable:
        import json  # only for --json

        print(json.dumps({"error": error.as_dict()}, indent=2))
    else:
        print(f"pvh: {error}", file=sys.stderr)
