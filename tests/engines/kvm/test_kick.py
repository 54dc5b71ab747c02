"""Getting a thread out of KVM_RUN, from whichever thread runs it."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from engines.kvm.scenarios import Run, guest_image
from pvh.engines.kvm.engine import KvmEngine
from pvh.engines.kvm.kick import kick_signal, knock


def test_the_signal_is_real_time_and_harmless() -> None:
    number = kick_signal()
    assert signal.SIGRTMIN < number <= signal.SIGRTMAX
    knock(threading.get_native_id())
    knock(1 << 30)  # no such thread


@pytest.mark.parametrize("blocked", [False, True])
def test_a_spinning_guest_is_left_at_once_on_any_thread(kvm_engine: KvmEngine, *, blocked: bool) -> None:
    """Signals may be blocked where the API is used; run() lets this one in."""
    with Run(kvm_engine, guest_image(10)) as run:

        def body() -> None:
            if blocked:
                signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            run.vm.vcpus[0].run(run.sink)

        thread = threading.Thread(target=body)
        thread.start()
        time.sleep(0.05)
        begin = time.monotonic()
        run.vm.vcpus[0].kick()
        thread.join(5)
        assert not thread.is_alive()
        assert time.monotonic() - begin < 0.5
        assert run.exits == []


def test_a_python_signal_handler_is_served_and_the_guest_goes_on(kvm_engine: KvmEngine) -> None:
    """A signal that is no kick ends KVM_RUN too; run() must not return for it."""
    hits: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: hits.append(number))
    with Run(kvm_engine, guest_image(10)) as run:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        threading.Timer(0.2, run.vm.vcpus[0].kick).start()
        begin = time.monotonic()
        run.vm.vcpus[0].run(run.sink)
        assert time.monotonic() - begin > 0.15
    signal.signal(signal.SIGALRM, before)
    assert hits == [signal.SIGALRM]
