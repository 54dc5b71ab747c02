"""Where debuggers connect: one at a time, to the machine that runs now."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

from pvh.errors import UsageError
from pvh.gdb.machine import MachineTarget
from pvh.gdb.monitor import History
from pvh.gdb.session import Session
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.machine import Machine
    from pvh.outcome import Outcome

_LOOK = 0.1  # seconds between two looks whether the machine is still there
_LINGER = 5.0  # seconds that a debugger has to be told of the end


class Server:
    """Listens at a place: [HOST:]PORT, of this host alone unless one is named, or unix:PATH.

    wait  machines do not run before a debugger came
    """

    def __init__(self, place: str, *, wait: bool, say: Callable[[str], None]) -> None:
        """Listen. Raises UsageError for what is no such place, or cannot be listened at."""
        self.history = History()
        self._wait = wait
        self._path = place.removeprefix("unix:") if place.startswith("unix:") else None
        try:
            self._socket = _unix(self._path) if self._path is not None else _tcp(place)
        except OSError as error:
            hint = "[HOST:]PORT or unix:PATH; another PORT, if it is in use"
            raise UsageError(f"cannot listen at {place}: {(error.strerror or str(error)).lower()}", hint=hint) from None
        name = self._path or "{}:{}".format(*self._socket.getsockname()[:2])
        say(f"gdb: target remote {name}" + ("; the guest waits for it" if wait else ""))

    def attend(self, machine: Machine) -> Attendant:
        """Let debuggers at a machine that is about to run."""
        if self._wait:
            machine.rest()
        return Attendant(self._socket, MachineTarget(machine, self.history))

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
        if self._path:
            os.unlink(self._path)


class Attendant:
    """Serves debuggers in a thread, while a machine runs in another."""

    def __init__(self, listening: socket.socket, target: MachineTarget) -> None:
        self._socket = listening
        self._target = target
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def finish(self, outcome: Outcome) -> None:
        """Tell whoever is there how the run ended. Afterwards nothing of the machine is used."""
        self._target.finish(outcome)
        self._thread.join(_LINGER)

    def _serve(self) -> None:
        self._socket.settimeout(_LOOK)
        while not self._target.ended:
            try:
                stream, _ = self._socket.accept()
            except TimeoutError:
                continue
            except OSError:  # it was closed
                return
            with stream:
                stream.settimeout(None)
                stop = self._target.stop()
                farewell = Session(stream, self._target, stop).serve()
            if farewell == "killed":
                self._target.end()
            if farewell != "gone":  # `disconnect` leaves the guest stopped, for whoever comes next
                self._target.leave()


def _unix(path: str | None) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path or "")
    listening.listen(1)
    return listening


def _tcp(place: str) -> socket.socket:
    host, _, port = place.rpartition(":")
    if not port.isdecimal() or int(port) > 0xFFFF:
        raise OSError(0, f"{port!r} is no port")
    return socket.create_server((host.strip("[]") or "127.0.0.1", int(port)), backlog=1)
