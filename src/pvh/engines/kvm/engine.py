"""The `kvm` engine: guests over /dev/kvm, without a C extension."""

from __future__ import annotations

import os
from functools import cached_property

from pvh.build.image import Image
from pvh.clock import Clock, HostClock
from pvh.engines.engine import CpuidTable, Traits
from pvh.engines.kvm import cpuid as leaves
from pvh.engines.kvm.device import open_device, virtualises
from pvh.engines.kvm.vm import KvmVm, tsc_khz
from pvh.errors import EngineError, UsageError
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvh.engines.kvm.probe import Probe

_MOST_VCPUS = 128  # APIC ids are twice the index, and 255 is broadcast
_UNTRUSTED = frozenset(("cmpxchg16b", "xrstor"))  # a software KVM was seen to report them and fail at them


class KvmEngine:
    """KVM. The local APIC, HLT and the wait of an AP for INIT and SIPI are inside the kernel."""

    name = "kvm"
    clock: Clock = HostClock()
    traits = Traits(has_lapic=True, sees_halt=False, sees_init_sipi=False, exact_stop=True, recent=False)

    def __init__(self, dev: int | None = None, probe: Probe | None = None) -> None:
        """Take over an open /dev/kvm, with what is known of it, or open it. Raises NoEngine, EngineError."""
        self._dev = -1  # where opening fails
        self._dev = open_device() if dev is None else dev
        self._known = probe
        self.tsc_khz = probe.tsc_khz if probe else tsc_khz(self._dev)
        """Frequency of guests' TSC in kHz."""

    def close(self) -> None:
        """Give /dev/kvm back; no guest can be made after."""
        dev, self._dev = self._dev, -1
        if dev >= 0:
            os.close(dev)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # at the interpreter's end there is no os
        if self._dev >= 0:
            close(self._dev)

    @cached_property
    def probe(self) -> Probe:
        """What this KVM can execute, its speed apart: found out where nobody did, in 5 ms. Raises EngineError."""
        from pvh.engines.kvm.probe import run_probe  # guests that run well do without

        return self._known or run_probe(self._dev, timed=False)

    def cpuid(self) -> CpuidTable:
        """Return KVM's supported leaves less its own hypervisor leaves, the host's topology and what may fail here."""
        return self._leaves

    @cached_property
    def _leaves(self) -> CpuidTable:
        if self._known:
            failing = frozenset(check.name for check in self._known.failing)
        else:
            failing = frozenset() if virtualises() else _UNTRUSTED
        return leaves.without(leaves.supported(self._dev), failing)

    def _weaknesses(self) -> str:
        """Say what the probe finds wrong with this KVM, to whom a guest broke; nothing if that is nothing."""
        try:
            failing = ", ".join(check.name for check in self.probe.failing)
        except EngineError:
            return ""
        return f"; this KVM fails at {failing} (pvh doctor tells more)" if failing else ""

    def open(self, image: Image, cpuid: tuple[CpuidTable, ...]) -> KvmVm:
        """Make a guest of an image, with one CPUID table for each vCPU. Raises EngineError when KVM refuses."""
        if not 1 <= len(cpuid) <= _MOST_VCPUS:
            raise UsageError(f"{len(cpuid)} vCPUs cannot be had", wanted=f"1 to {_MOST_VCPUS}", hint="change --vcpus")
        return KvmVm(self._dev, image, cpuid, self._weaknesses)
