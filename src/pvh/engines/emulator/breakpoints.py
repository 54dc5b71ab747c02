"""Places at which a debugger wants the processor to stop, before the instruction there."""

from __future__ import annotations

from pvh.engines.emulator import libunicorn as uc


class Breakpoints:
    """Linear addresses with a hook each: other code is translated as if there were none.

    hit  where the last run stopped; whoever takes it clears it
    """

    def __init__(self, handle: uc.Handle) -> None:
        self._handle = handle
        self._callback = uc.CodeHook(self._stop)
        self._hooks: dict[int, int] = {}
        self.hit: int | None = None

    def set(self, addresses: frozenset[int]) -> bool:
        """Have these, and no others; return whether translated code must be forgotten. Between runs."""
        gone, new = self._hooks.keys() - addresses, addresses - self._hooks.keys()
        for address in gone:
            self._handle.unhook(self._hooks.pop(address))
        for address in new:
            self._hooks[address] = self._handle.hook(uc.HOOK_CODE, self._callback, within=(address, address))
        return bool(gone or new)

    def _stop(self, _uc: int, address: int, _size: int, _data: int) -> None:
        self.hit = address
        self._handle.stop()
