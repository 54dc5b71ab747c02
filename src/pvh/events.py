"""A guest's exits as a program hears them."""

from __future__ import annotations

import threading
import weakref
from collections import deque

from pvh.engines.exits import Exit
from pvh.hints import TYPE_CHECKING
from pvh.record import dataclass

if TYPE_CHECKING:
    from typing import Self

_MOST = 1 << 20  # that wait for whoever asked for them


@dataclass(frozen=True, slots=True)
class Event:
    """An exit of a guest, which has been answered.

    vcpu    whose, from 0
    exit    what happened: one of the classes of pvh.engines.exits, such as PortOut or Hypercall
    answer  what the guest got: the value it read, a hypercall's result; None where there is none

    >>> with pvh.boot(pvh.demo_path(), paused=True) as guest:
    ...     events = guest.events()
    ...     guest.resume()
    ...     first = next(events)
    >>> first.vcpu
    0
    """

    vcpu: int
    exit: Exit
    answer: int | None


class Ear:
    """Gives each event from when it was made, in order, until the guest has ended. Forgotten, it hears nothing more."""

    def __init__(self, audience: Audience) -> None:
        self._audience = audience
        self.waiting: deque[Event] = deque(maxlen=_MOST)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        audience = self._audience
        with audience.news:
            while not self.waiting and not audience.over:
                audience.news.wait()
            if not self.waiting:
                raise StopIteration
            return self.waiting.popleft()


class Audience:
    """Who hears a guest's exits.

    news  tells of exits, and of the end
    over  the guest has ended, and all its exits were heard
    """

    def __init__(self) -> None:
        self.news = threading.Condition()
        self.over = False
        self._ears: list[weakref.ref[Ear]] = []

    def listen(self) -> Ear:
        """Return one who hears all exits from now on."""
        ear = Ear(self)
        self._ears.append(weakref.ref(ear, self._ears.remove))
        return ear

    def hear(self, vcpu: int, event: Exit, answer: int | None) -> None:
        """Take an exit. For the machine."""
        if not self._ears:
            return
        with self.news:
            for ear in [found for ref in self._ears if (found := ref())]:
                ear.waiting.append(Event(vcpu, event, answer))
            self.news.notify_all()

    def set_over(self, *, over: bool) -> None:
        """Note that the guest has ended, or runs again."""
        with self.news:
            self.over = over
            self.news.notify_all()
