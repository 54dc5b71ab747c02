"""A local APIC in xAPIC mode, for engines that have none (Intel SDM vol. 3, chapter 11; version as Xen's vlapic.c).

It decides which vector a processor takes next; the engine takes it when the processor's IF lets it.
"""

from __future__ import annotations

from collections.abc import Callable

BASE = 0xFEE00000
SIZE = 0x1000

_ID, _VERSION, _TPR, _APR, _PPR, _EOI, _LDR, _DFR, _SVR = 0x20, 0x30, 0x80, 0x90, 0xA0, 0xB0, 0xD0, 0xE0, 0xF0
_ISR, _TMR, _IRR, _ESR, _ICR, _ICR_HIGH = 0x100, 0x180, 0x200, 0x280, 0x300, 0x310
_LVT_TIMER, _LVT_THERMAL, _LVT_PERF, _LVT_LINT0, _LVT_LINT1, _LVT_ERROR = 0x320, 0x330, 0x340, 0x350, 0x360, 0x370
_INITIAL_COUNT, _CURRENT_COUNT, _DIVIDE = 0x380, 0x390, 0x3E0

_XEN_VERSION = 0x00050014  # 6 LVT entries, version 0x14
_BUS_CYCLE_NS = 10  # Xen's APIC_BUS_CYCLE_NS: a 100 MHz bus
_ENABLED = 1 << 8  # SVR
_MASKED = 1 << 16
_PERIODIC = 1 << 17
_SHORTEST_PERIOD_NS = 100_000  # as Xen's create_periodic_time: a guest must not drown in its own timer
_LVT_WRITABLE = {
    _LVT_TIMER: 0x300FF,
    _LVT_THERMAL: 0x107FF,
    _LVT_PERF: 0x107FF,
    _LVT_LINT0: 0x1A7FF,
    _LVT_LINT1: 0x1A7FF,
    _LVT_ERROR: 0x100FF,
}
_WRITABLE = {_TPR: 0xFF, _LDR: 0xFF000000, _DFR: 0xF0000000, _SVR: 0x3FF, _ICR_HIGH: 0xFF000000, _DIVIDE: 0xB}


class LocalApic:
    """One processor's local APIC.

    now   returns ns of any steady clock
    arm   asks for expire() at that clock's value (None: no longer)
    send  takes an inter-processor interrupt: ICR's low word, and the destination of its high word
    """

    KEPT = ("_registers", "_irr", "_isr", "_count_start")

    def __init__(self, apic_id: int, now: Callable[[], int], arm: Callable[[int | None], None]) -> None:
        self._now, self._arm = now, arm
        self._id = apic_id
        self.send: Callable[[int, int], None] = lambda _command, _destination: None
        self.reset()

    def reset(self) -> None:
        """Take the state of power-up, as INIT gives it too (SDM 11.4.7): disabled, all masked."""
        self._registers = dict.fromkeys(_LVT_WRITABLE, _MASKED) | {_ID: self._id << 24, _VERSION: _XEN_VERSION}
        self._registers |= {_DFR: 0xFFFFFFFF, _SVR: 0xFF}
        self._irr = 0
        self._isr = 0
        self._count_start = 0
        self._arm(None)

    @property
    def enabled(self) -> bool:
        """Whether software enabled it (SVR bit 8)."""
        return bool(self._registers[_SVR] & _ENABLED)

    def accept(self, vector: int) -> None:
        """Take an edge interrupt in.

        While the APIC is disabled it waits, as in Xen (vlapic_set_irq): Linux names its upcall vector before it enables
        the APIC, and an upcall that is lost leaves evtchn_upcall_pending set, after which none follows.
        """
        if vector >= 0x10:
            self._irr |= 1 << vector

    def pending(self) -> int | None:
        """Return the vector the processor should take next, if its priority is above what is in service."""
        vector = self._irr.bit_length() - 1
        return vector if self.enabled and self._irr and vector >> 4 > self._priority() >> 4 else None

    def acknowledge(self, vector: int) -> None:
        """Move a vector from requested to in service: the processor takes it now."""
        self._irr &= ~(1 << vector)
        self._isr |= 1 << vector

    def expire(self) -> None:
        """Fire the timer, and start its next period if it has one."""
        timer = self._registers[_LVT_TIMER]
        if not timer & _MASKED:
            self.accept(timer & 0xFF)
        if timer & _PERIODIC:
            self._next_period()
        else:
            self._arm(None)

    def read(self, offset: int) -> int:
        """Answer a 32-bit load at an offset into the APIC page."""
        for base, bits in ((_ISR, self._isr), (_IRR, self._irr), (_TMR, 0)):
            if base <= offset < base + 0x80:
                return bits >> (offset - base) // 0x10 * 32 & 0xFFFFFFFF
        if offset == _PPR:
            return self._priority()
        if offset == _CURRENT_COUNT:
            return self._current_count()
        return self._registers.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        """Carry out a 32-bit store at an offset into the APIC page."""
        if offset == _EOI:
            self._isr &= ~(1 << self._isr.bit_length() >> 1)
        elif offset == _ICR:
            self._registers[_ICR] = value & 0xCCFFF
            self.send(value, self._registers.get(_ICR_HIGH, 0) >> 24)
        elif offset == _INITIAL_COUNT:
            self._registers[offset] = value
            self._start_timer()
        elif offset in _LVT_WRITABLE:
            forced = 0 if self.enabled else _MASKED
            self._registers[offset] = value & _LVT_WRITABLE[offset] | forced
        elif offset == _SVR:
            self._registers[_SVR] = value & _WRITABLE[_SVR]
            if not self.enabled:
                for entry in _LVT_WRITABLE:
                    self._registers[entry] |= _MASKED
        elif offset == _DFR:
            self._registers[_DFR] = value | 0x0FFFFFFF
        elif offset in _WRITABLE:
            self._registers[offset] = value & _WRITABLE[offset]

    def is_addressed(self, destination: int, *, logical: bool) -> bool:
        """Whether a destination, physical or logical, is this processor (SDM 11.6.2)."""
        if destination == 0xFF:
            return True
        if not logical:
            return destination == self._id
        own = self._registers.get(_LDR, 0) >> 24
        if self._registers[_DFR] >> 28 == 0xF:
            return bool(destination & own)
        return destination >> 4 == own >> 4 and bool(destination & own & 0xF)

    def _priority(self) -> int:
        tpr = self._registers.get(_TPR, 0)
        served = max(0, self._isr.bit_length() - 1)
        return tpr if tpr >> 4 >= served >> 4 else served & 0xF0

    def _tick_ns(self) -> int:
        divide = self._registers.get(_DIVIDE, 0)
        code = (divide & 3) | (divide >> 1 & 4)
        return _BUS_CYCLE_NS << (code + 1 & 7)

    def _start_timer(self) -> None:
        count = self._registers.get(_INITIAL_COUNT, 0)
        self._count_start = self._now()
        self._arm(self._count_start + count * self._tick_ns() if count else None)

    def _next_period(self) -> None:
        """Go on from when the period ended, however late we are; periods that were missed altogether are skipped."""
        count = self._registers.get(_INITIAL_COUNT, 0)
        if not count:
            self._arm(None)
            return
        period = max(count * self._tick_ns(), _SHORTEST_PERIOD_NS)
        gone = max(1, (self._now() - self._count_start) // period)
        self._count_start += gone * period
        self._arm(self._count_start + period)

    def _current_count(self) -> int:
        count = self._registers.get(_INITIAL_COUNT, 0)
        gone = (self._now() - self._count_start) // self._tick_ns()
        if self._registers[_LVT_TIMER] & _PERIODIC and count:
            return count - gone % count
        return max(0, count - gone)
