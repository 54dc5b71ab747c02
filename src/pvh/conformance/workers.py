"""Forked workers that end with the process that waits for them, however that ends.

A pipe has the number of each piece of work, a byte each: who reads it does that piece. Answers come back through a pipe
for each worker. There are no locks and no threads: nothing that could be held for ever when somebody ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import TypeVar

from pvh.errors import EngineError
from pvh.hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

Answer = TypeVar("Answer")

_PR_SET_PDEATHSIG = 1  # linux: include/uapi/linux/prctl.h


def spread(count: int, jobs: int, begin: Callable[[], Callable[[int], Answer]]) -> Iterator[Answer]:
    """Yield what each piece of work (at most 256) gives, in order; raise what it raises, and EngineError for a death.

    begin  is called in each worker, and returns what does a piece
    """
    todo, giving = os.pipe()
    os.write(giving, bytes(range(count)))
    os.close(giving)
    workers: dict[Connection, int] = {}
    try:
        for _ in range(min(jobs, count)):
            _start(workers, todo, begin)
        yield from _in_order(count, set(workers))
    finally:
        os.close(todo)
        for answers, pid in workers.items():
            answers.close()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _start(workers: dict[Connection, int], todo: int, begin: Callable[[], Callable[[int], Any]]) -> None:
    receiving, sending = os.pipe()
    parent = os.getpid()
    with _no_interrupt():
        pid = os.fork()
        if not pid:
            try:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits
                _end_with(parent)
                for answers in workers:
                    answers.close()
                os.close(receiving)
                _work(todo, Connection(sending, readable=False), begin)
            finally:
                os._exit(0)
        workers[Connection(receiving, writable=False)] = pid
    os.close(sending)


@contextmanager
def _no_interrupt() -> Generator[None]:
    """Have no Ctrl-C come in here: what Python does at a fork would swallow it, or a child would not be known."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with(parent: int) -> None:
    """Have the kernel end this process when the thread that forked it does."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def _work(todo: int, answers: Connection, begin: Callable[[], Callable[[int], Any]]) -> None:
    """Do pieces until there are none; send each one's number, what it gave, and what it raised."""
    do = begin()
    while piece := os.read(todo, 1):
        try:
            answers.send((piece[0], do(piece[0]), None))
        except Exception as error:  # noqa: BLE001 - it is for who waits
            answers.send((piece[0], None, error))


def _in_order(count: int, workers: set[Connection]) -> Iterator[Any]:
    done: dict[int, tuple[Any, Exception | None]] = {}
    for index in range(count):
        while index not in done:
            if not workers:
                raise EngineError("a worker process died", hint="there may be too little memory; try --jobs 1")
            for answers in wait(workers):
                assert isinstance(answers, Connection)
                try:
                    number, answer, error = answers.recv()
                    done[number] = answer, error
                except (EOFError, OSError):
                    workers.remove(answers)
        answer, error = done.pop(index)
        if error:
            raise error
        yield answer
