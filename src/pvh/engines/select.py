"""Which engine runs the guest: the one asked for, or the better of those that work here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from pvh.errors import EngineError, NoEngine, UsageError
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.engines.engine import Engine
    from pvh.engines.kvm.engine import KvmEngine
    from pvh.plan.options import ClockName, EngineName


def choose(name: EngineName, report: Callable[[str], None], clock: ClockName = "host") -> Engine:
    """Return the engine of that name; for `auto`, KVM if its probe passes, else the emulator.

    report is told in one line why `auto` did not take KVM. A KVM that was asked for is only tested once it breaks a
    guest. A clock of instructions needs the emulator. Raises NoEngine, which says what to do, and UsageError.
    """
    if clock == "instructions" and name == "kvm":
        raise UsageError("--clock instructions: KVM does not count what a guest executes", hint="use --engine emulator")
    if clock == "instructions" and name == "auto":
        report("using the emulator, not KVM: --clock instructions needs it")
        return _emulator(clock)
    if name == "emulator":
        return _emulator(clock)
    if name == "kvm":
        return _kvm()
    engine, why_not = _tested_kvm()
    if engine is not None:
        return engine
    report(f"using the emulator, not KVM: {why_not}")
    try:
        return _emulator(clock)
    except NoEngine as error:
        raise NoEngine(
            f"no engine is usable: KVM: {why_not}; emulator: {error.cause}", hint=error.hint or "see pvh doctor"
        ) from None


def why_not(name: str) -> str:
    """Return in one clause why an engine, `kvm` or `emulator`, cannot be relied on here; "" if it can.

    Of a KVM that opens but fails at something of its probe, that is what it fails at first: `auto` leaves it then.
    """
    if name == "kvm":
        engine, cause = _tested_kvm()
        if engine is not None:
            engine.close()
        return cause
    try:
        _emulator("host")
    except NoEngine as error:
        return error.cause
    return ""


def _emulator(clock: ClockName) -> Engine:
    try:
        from pvh.engines.emulator.engine import EmulatorEngine  # 35 ms for its library, which KVM does not need
    except ImportError as error:
        raise NoEngine(f"the emulator's library cannot be imported: {error}", hint="pip install unicorn") from None
    try:
        return EmulatorEngine(virtual=clock == "instructions")
    except EngineError as error:
        raise NoEngine(f"the emulator does not work here: {error.cause}", hint=error.hint) from None


def _kvm() -> Engine:
    need_linux()
    from pvh.engines.kvm.engine import KvmEngine  # likewise

    try:
        return KvmEngine()
    except EngineError as error:
        raise NoEngine(error.cause, hint=error.hint) from None


def need_linux() -> None:
    """Raise NoEngine where there is no KVM to ask for: its modules cannot even be imported."""
    if sys.platform != "linux":
        raise NoEngine("KVM is a part of Linux, which this is not", found=sys.platform, hint="use --engine emulator")


def _tested_kvm() -> tuple[KvmEngine | None, str]:
    """Return KVM if every check of its probe passes, else why not."""
    try:
        need_linux()
        from pvh.engines.kvm.device import open_device

        dev = open_device()
    except NoEngine as error:
        return None, error.cause
    from pvh.engines.kvm.engine import KvmEngine
    from pvh.engines.kvm.probe import run_probe

    try:
        probe = run_probe(dev, until_failure=True)
    except EngineError as error:
        os.close(dev)
        return None, error.cause
    if probe.failing:
        os.close(dev)
        return None, f"it fails at {probe.failing[0].meaning} (pvh doctor tells more)"
    return KvmEngine(dev, probe), ""
