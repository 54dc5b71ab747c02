"""The domain's clock: system time as a linear function of the guest's TSC (vcpu_time_info of public/xen.h)."""

from __future__ import annotations

from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.xen.host import Host

_NS = 1_000_000_000


def scale(khz: int) -> tuple[int, int]:
    """Return (tsc_to_system_mul, tsc_shift) for a TSC of that many kHz."""
    hz, shift = khz * 1000, 0
    while hz > 2 * _NS:
        hz >>= 1
        shift -= 1
    while hz <= _NS:
        hz <<= 1
        shift += 1
    return (_NS << 32) // hz, shift


class Clock:
    """Nanoseconds since the domain was made, and the wall clock at that moment."""

    KEPT = ("mul", "shift", "origin", "wallclock_ns")

    def __init__(self, host: Host) -> None:
        self._host = host
        self.mul, self.shift = scale(host.tsc_khz)
        self.origin = host.guest_tsc()
        self.wallclock_ns = host.wallclock()

    def now(self) -> int:
        """Return the system time in ns, exactly as a guest computes it from its TSC."""
        delta = max(0, self._host.guest_tsc() - self.origin)
        delta = delta << self.shift if self.shift >= 0 else delta >> -self.shift
        return delta * self.mul >> 32
