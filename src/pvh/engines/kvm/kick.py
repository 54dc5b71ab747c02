"""Getting a thread out of KVM_RUN: a real-time signal that does nothing.

KVM_RUN returns EINTR when its thread has a signal to take. signal.signal works in the main thread only and runs Python
code; here the disposition is set through libc, and the handler is libc's abs(): native, async-signal-safe, no effect.
The flag kvm_run.immediate_exit, set before the signal is sent, covers the time before the thread is inside.
"""

from __future__ import annotations

import ctypes
import os
import signal
from functools import cache

from pvh.errors import EngineError

_libc = ctypes.CDLL(None, use_errno=True)
_libc.signal.restype = ctypes.c_void_p
_libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
_SYS_TGKILL = 234  # linux/arch/x86/entry/syscalls/syscall_64.tbl


@cache
def kick_signal() -> int:
    """Return the signal number used for kicks, its handler in place: the highest real-time signal nobody handles."""
    nothing = ctypes.cast(_libc.abs, ctypes.c_void_p).value
    for number in range(signal.SIGRTMAX, signal.SIGRTMIN, -1):
        before = _libc.signal(number, nothing)
        if before is None:  # ctypes' spelling of 0, SIG_DFL
            return number
        _libc.signal(number, before)
    raise EngineError("every real-time signal is in use, and the KVM engine needs one to stop a vCPU")


def let_in() -> None:
    """Unblock the signal in the calling thread, which is about to enter KVM_RUN."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (kick_signal(),))


def knock(thread: int) -> None:
    """Send the signal to a thread of this process, by kernel thread id. A thread that is gone is no error."""
    _libc.syscall(_SYS_TGKILL, os.getpid(), thread, kick_signal())
