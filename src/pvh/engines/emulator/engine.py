"""The `emulator` engine: guests on the stock unicorn wheel, on any host and without privileges."""

from __future__ import annotations

import time

from pvh.build.image import Image
from pvh.clock import HostClock, InstructionClock
from pvh.engines.emulator import calibrate
from pvh.engines.emulator.cpuid import faithful_table, without_random
from pvh.engines.emulator.libunicorn import library
from pvh.engines.emulator.native import host_tsc
from pvh.engines.emulator.vm import EmulatorVm
from pvh.engines.engine import CpuidTable, Traits

# With readings 100 ns apart at worst, an error of 30 in a million.
_MEASURED_NS = 3_000_000


def _moment() -> tuple[int, int]:
    """Return the host's counter and its clock in ns at one moment: of some readings, the pair taken fastest."""
    readings: list[tuple[int, int, int]] = []
    for _ in range(5):
        before, at, after = host_tsc(), time.monotonic_ns(), host_tsc()
        readings.append((after - before, (before + after) // 2, at))
    _, tsc, at = min(readings)
    return tsc, at


class EmulatorEngine:
    """Executes guests by translation. Raises NoEngine where the library is missing.

    virtual  time is what the guest executes, and nothing random reaches it
    """

    name = "emulator"
    traits = Traits(has_lapic=False, sees_halt=True, sees_init_sipi=False, exact_stop=True, recent=True)

    def __init__(self, *, virtual: bool = False) -> None:
        self.clock = InstructionClock() if virtual else HostClock()
        self._started = _moment()
        self._tsc_khz = 1_000_000 if virtual else 0  # that clock's nanoseconds
        library()
        self.layout = calibrate.find_layout()

    def cpuid(self) -> CpuidTable:
        """Return the CPUID leaves it can execute faithfully."""
        return without_random(faithful_table()) if self.clock.virtual else faithful_table()

    @property
    def tsc_khz(self) -> int:
        """Frequency of the guest's TSC: the clock's, or the host's as measured since the engine was made."""
        if not self._tsc_khz:
            tsc, at = self._started
            time.sleep(max(0, at + _MEASURED_NS - time.monotonic_ns()) / 1e9)
            now, then = _moment()
            self._tsc_khz = (now - tsc) * 1_000_000 // (then - at)
        return self._tsc_khz

    def close(self) -> None:
        """Do nothing: the library stays for the next."""

    def open(self, image: Image, cpuid: tuple[CpuidTable, ...]) -> EmulatorVm:
        """Make a guest of an image. Raises EngineError when the host refuses."""
        return EmulatorVm(image, cpuid, self.layout, self.clock)
