"""A person at a guest: who gets the keys, what signals do, and what follows a reboot."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from contextlib import nullcontext

from pvh.cli.terminal import feed
from pvh.hints import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import FrameType

    from pvh.cli.boot import Boot
    from pvh.clock import Clock
    from pvh.devices.typed import Typed
    from pvh.gdb.server import Server
    from pvh.machine import Machine
    from pvh.outcome import Outcome

Source = Literal["keys", "pipe", "none"]

_GRACE = 5  # seconds that a guest has to power off
_INTERRUPTED = 130
_ASKING = (signal.SIGINT, signal.SIGTERM)
_ENDING = (*_ASKING, signal.SIGHUP) if hasattr(signal, "SIGHUP") else _ASKING


class Session:
    """Runs a plan, and again when the guest reboots, if restart says so.

    fd   where the guest's input comes from; None: nowhere
    end  goes to the guest behind the last byte of an input that ends
    say  is told what a person should know
    source  of the guest's input: a terminal's keys, as they are pressed, what comes without being seen, or none
    """

    def __init__(self, fd: int | None, *, end: bytes, restart: bool, say: Callable[[str], None]) -> None:
        self._fd = fd
        self._end = end
        self._restart = restart
        self._say = say
        keys = fd == 0 and os.isatty(0) and os.isatty(1) and hasattr(os, "tcgetpgrp")  # else line by line
        self.source: Source = "keys" if keys else "none" if fd is None else "pipe"
        self._machine: Machine | None = None
        self._why = ""  # the run is to end before the guest ends it

    def run(self, boot: Boot, make: Callable[[], Machine], debuggers: Server | None = None) -> tuple[Machine, Outcome]:
        """Return the last machine that make() made of a boot, and how it ended. All together have its timeout."""
        deadline = None if boot.timeout is None else time.monotonic() + boot.timeout
        self._take_signals()
        with self._terminal():
            boot.typed = self._listen(boot.choose().clock)
            while True:
                self._machine = machine = make()
                if self._why:  # a signal came before there was a machine to end
                    machine.end("interrupted", self._why)
                attendant = debuggers.attend(machine) if debuggers else None
                outcome = machine.run(close=attendant is None)
                if attendant:
                    attendant.finish(outcome)
                    machine.vm.close()
                if outcome.ending != "reboot" or not self._restart or self._why:
                    self._alarm(0)
                    return machine, outcome
                self._say(f"the guest rebooted after {outcome.seconds:.2f} s, and starts again")
                machine.image.ram.close()
                if deadline is not None:
                    boot.timeout = max(0.0, deadline - time.monotonic())

    def status(self, outcome: Outcome, status: int) -> int:
        """Return the exit status: one of its own if a person had the guest power off."""
        return _INTERRUPTED if self._why and outcome.ending == "poweroff" else status

    def _terminal(self) -> AbstractContextManager[object]:
        if self.source != "keys":
            return nullcontext()
        from pvh.cli.raw import RawTerminal  # only at a terminal

        self._say("every key goes to the guest; ^] leaves it")
        return RawTerminal(0)

    def _listen(self, clock: Clock) -> Typed | None:
        """Start to read the guest's input. A file's is all there from the start, where a run is to be repeatable."""
        if self._fd is None:
            return None
        import threading

        from pvh.devices.typed import Typed

        if os.isatty(self._fd) and hasattr(signal, "SIGTTIN"):
            signal.signal(signal.SIGTTIN, signal.SIG_IGN)  # in the background a read fails, and the guest goes on
        held = bool(self._end)
        if clock.virtual and stat.S_ISREG(os.fstat(self._fd).st_mode):
            typed = Typed(held=held, limit=sys.maxsize)
            feed(self._fd, typed, end=self._end)
            return typed
        typed = Typed(held=held)
        leave = self._leave if self.source == "keys" else None
        threading.Thread(target=feed, args=(self._fd, typed, leave, self._end), daemon=True).start()
        return typed

    def _leave(self) -> None:
        self._stop("^] was typed")

    def _asked(self, listens: bool) -> None:  # noqa: FBT001 - a callback
        if listens:
            self._say(f"{self._why}: the guest is asked to power off; another signal stops it")
        else:
            self._stop(self._why)

    def _stop(self, why: str) -> None:
        self._why = why
        if self._machine:
            self._machine.end("interrupted", why)

    def _take_signals(self) -> None:
        """Take those that end a program. What we were started to ignore (nohup, a script's background) stays so."""
        for number in _ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._signalled)

        if hasattr(signal, "SIGALRM"):
            signal.signal(signal.SIGALRM, self._time_is_up)

    def _alarm(self, seconds: int) -> None:
        """Call _time_is_up() then; 0: not any more. Without alarms (Windows) only a second signal ends the wait."""
        if hasattr(signal, "alarm"):
            signal.alarm(seconds)

    def _time_is_up(self, _number: int, _frame: FrameType | None) -> None:
        self._stop(f"{self._why}, and the guest did not power off in time")

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        """Ask the guest to power off the first time, if it can listen, and if ^C is not the guest's; else stop it."""
        why = f"{signal.Signals(number).name} came"
        machine = self._machine
        at_once = self.source == "keys" or self._why or number not in _ASKING
        if machine and not (at_once or machine.resting):  # one that a debugger holds hears nothing
            self._why = why
            self._alarm(_GRACE)
            machine.ask_to_power_off(self._asked)
        else:
            self._stop(why)
