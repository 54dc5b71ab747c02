"""The `kvm` engine: guests over /dev/kvm, without a C extension."""

from __future__ import annotations

from functools import cached_property

from pvh.build.image import Image
from pvh.engines.engine import CpuidTable, Traits
from pvh.engines.kvm import cpuid as leaves
from pvh.engines.kvm.device import open_device
from pvh.engines.kvm.probe import Probe, run_probe
from pvh.engines.kvm.vm import KvmVm
from pvh.errors import UsageError

_MOST_VCPUS = 128  # APIC ids are twice the index, and 255 is broadcast


class KvmEngine:
    """KVM. The local APIC, HLT and the wait of an AP for INIT and SIPI are inside the kernel."""

    name = "kvm"
    traits = Traits(has_lapic=True, sees_halt=False, sees_init_sipi=False, exact_stop=True, recent=False)

    def __init__(self, dev: int | None = None, probe: Probe | None = None) -> None:
        """Use an open /dev/kvm and what is known of it, or open it and find out. Raises NoEngine, EngineError."""
        self._dev = open_device() if dev is None else dev
        self.probe = run_probe(self._dev, timed=False) if probe is None else probe

    @property
    def tsc_khz(self) -> int:
        """Frequency of guests' TSC in kHz."""
        return self.probe.tsc_khz

    def cpuid(self) -> CpuidTable:
        """Return KVM's supported leaves less its own hypervisor leaves, the host's topology and what fails here."""
        return self._leaves

    @cached_property
    def _leaves(self) -> CpuidTable:
        failing = frozenset(check.name for check in self.probe.failing)
        return leaves.without(leaves.supported(self._dev), failing)

    def open(self, image: Image, cpuid: tuple[CpuidTable, ...]) -> KvmVm:
        """Make a guest of an image, with one CPUID table for each vCPU. Raises EngineError when KVM refuses."""
        if not 1 <= len(cpuid) <= _MOST_VCPUS:
            raise UsageError(f"{len(cpuid)} vCPUs cannot be had", wanted=f"1 to {_MOST_VCPUS}", hint="change --vcpus")
        return KvmVm(self._dev, image, cpuid)
