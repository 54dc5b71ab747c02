"""The guest's TSC seen from outside, while its vCPUs run.

KVM reads a vCPU's TSC only when it is out of KVM_RUN. The guest's counter is the host's plus a constant (its frequency
is the host's unless somebody set another), so the difference is measured once, before the guest starts.
A guest that writes its TSC moves away from this.
"""

from __future__ import annotations

import time

from pvh import native
from pvh.engines.kvm.vcpu import KvmVcpu

_MASK64 = (1 << 64) - 1


class GuestClock:
    """TSC of a vCPU, computed."""

    def __init__(self, vcpu: KvmVcpu) -> None:
        """Compare the two counters."""
        self._khz = vcpu.tsc_khz
        self._host = native.rdtsc() or self._estimate
        before, guest, after = self._host(), vcpu.tsc(), self._host()
        self._offset = guest - (before + after) // 2

    def now(self) -> int:
        """Return what RDTSC would give the guest now."""
        return (self._host() + self._offset) & _MASK64

    def _estimate(self) -> int:
        """Count by the host's unsteered clock, where its TSC cannot be read: right to a few parts in a million."""
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) * self._khz // 1_000_000
