"""The emulator with a first-read monitor on its first processor: an Engine for pvh.machine, for one guest."""

from __future__ import annotations

from pvh.conformance.monitor.entry_memory import entry_memory
from pvh.conformance.monitor.watch import Watch
from pvh.engines.emulator.cpuid import CpuidLookup
from pvh.engines.emulator.engine import EmulatorEngine
from pvh.engines.emulator.exceptions import HARDWARE, Event
from pvh.engines.emulator.vcpu import EmulatorVcpu
from pvh.engines.emulator.vm import EmulatorVm
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvh.build.image import Image
    from pvh.conformance.finding import Finding
    from pvh.engines.engine import CpuidTable

INSTRUCTIONS = 200_000  # enough for Linux to be in 64-bit C code with tables and stack of its own


class MonitoredEngine:
    """An emulator that watches a guest's first instructions.

    engine  is used for everything but the watching; it may serve other machines before and after
    limit   instructions to watch; the guest then goes on at full speed
    loaded  (gpa, size) of memory that was filled and that neither the plan nor start_info tells of

    over    is called when watching ends before the guest does: from a hook, so it may ask for an end, but not do much

    Watching ends, too, when another processor has a turn. Needs capstone: ImportError comes from open().
    """

    name = "emulator"

    def __init__(
        self,
        engine: EmulatorEngine,
        limit: int = INSTRUCTIONS,
        loaded: tuple[tuple[int, int], ...] = (),
        over: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._limit = limit
        self._loaded = loaded
        self._over = over
        self._watch: Watch | None = None
        self.traits = engine.traits
        self.clock = engine.clock

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found, in the order of the guest's execution; after the run. Raises what made the watching fail."""
        return self._watch.findings() if self._watch else ()

    @property
    def read(self) -> dict[str, int]:
        """What was read of start_info and what it leads to, and how many blocks of code had been executed then."""
        return self._watch.read if self._watch else {}

    @property
    def watched(self) -> int:
        """Instructions that were watched; a repeated string instruction counts once."""
        return self._watch.count if self._watch else 0

    def cpuid(self) -> CpuidTable:
        """Return the CPUID leaves of the engine."""
        return self._engine.cpuid()

    @property
    def tsc_khz(self) -> int:
        """Frequency of the guest's time stamp counter."""
        return self._engine.tsc_khz

    def close(self) -> None:
        """Give back the engine."""
        self._engine.close()

    def open(self, image: Image, cpuid: tuple[CpuidTable, ...]) -> EmulatorVm:
        """Make a guest of an image. Raises EngineError when the host refuses."""
        vm = _MonitoredVm(image, cpuid, self._engine.layout, self.clock)
        self._watch = vm.watch = Watch(vm, image, entry_memory(image, self._loaded), self._limit, self._over)
        return vm


class _MonitoredVm(EmulatorVm):
    """A guest whose first processor is watched."""

    watch: Watch | None = None

    def vcpu(self, index: int, table: CpuidTable) -> EmulatorVcpu:
        """Make a processor."""
        return super().vcpu(index, table) if index else _MonitoredVcpu(self, index, table)

    def close(self) -> None:
        """Give everything back but the image's memory."""
        if self.watch:
            self.watch.close()
        super().close()


class _MonitoredVcpu(EmulatorVcpu):
    """A processor whose exceptions the monitor hears of."""

    def __init__(self, vm: _MonitoredVm, index: int, table: CpuidTable) -> None:
        super().__init__(vm, index, CpuidLookup(table))
        self._vm = vm

    def deliver(self, event: Event, length: int = 0) -> None:
        """Enter the guest's handler for an event."""
        if self._vm.watch:
            self._vm.watch.event(event.vector, raised=event.source == HARDWARE)
        super().deliver(event, length)
