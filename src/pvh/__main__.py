"""The `pvh` command, and `python -m pvh`."""

import sys

TYPE_CHECKING = False  # as pvh.hints has it
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal  # the interpreter has it; the module around it takes as long as all else here, and more


def start() -> int:
    """Run a command line and return its exit status. Ctrl-C ends it without a word until the command takes it.

    Python's own way, an exception wherever it comes, would show in which import that was.
    """
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # else we were started to ignore it
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from pvh.cli import program

    return program()


if __name__ == "__main__":
    sys.exit(start())
