"""The `emulator` engine: guests on the stock unicorn wheel, on any host and without privileges."""

from __future__ import annotations

import time

from pvh.build.image import Image
from pvh.engines.emulator import calibrate
from pvh.engines.emulator.cpuid import faithful_table
from pvh.engines.emulator.libunicorn import library
from pvh.engines.emulator.native import host_tsc
from pvh.engines.emulator.vm import EmulatorVm
from pvh.engines.engine import CpuidTable, Traits


class EmulatorEngine:
    """Executes guests by translation. Raises NoEngine where the library is missing."""

    name = "emulator"
    traits = Traits(has_lapic=False, sees_halt=True, sees_init_sipi=False, exact_stop=True, recent=True)

    def __init__(self) -> None:
        self._started = (host_tsc(), time.monotonic_ns())
        library()
        self._layout = calibrate.find_layout()

    def cpuid(self) -> CpuidTable:
        """Return the CPUID leaves it can execute faithfully."""
        return faithful_table()

    @property
    def tsc_khz(self) -> int:
        """Frequency of the guest's time stamp counter, which is the host's, as measured since the engine was made."""
        tsc, at = self._started
        while (elapsed := time.monotonic_ns() - at) < 2_000_000:
            time.sleep(0.0005)
        return (host_tsc() - tsc) * 1_000_000 // elapsed

    def open(self, image: Image, cpuid: tuple[CpuidTable, ...]) -> EmulatorVm:
        """Make a guest of an image. Raises EngineError when the host refuses."""
        return EmulatorVm(image, cpuid, self._layout)
