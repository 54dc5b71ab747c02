"""Stopping a run between two blocks.

uc_emu_stop() from another thread, and the library's timeout, may execute a read-modify-write twice: the exit check sits
after each access and rewinds RIP. Called by a block hook it is exact. Where the native hook cannot be had, runs are cut
into counted pieces, which end exactly, too.
"""

from __future__ import annotations

from pvh.engines.emulator import native
from pvh.engines.emulator.libunicorn import HOOK_BLOCK, Handle
from pvh.engines.emulator.native import RUN, STOP, WINDOW, ControlBlock
from pvh.engines.emulator.vmcb import CODE

__all__ = ["RUN", "STOP", "WINDOW", "Stopper"]

# Blocks between two looks at what Python has to do (signals of the main thread): 50-100 ms.
_SLICE_BLOCKS = 1 << 20
# Instructions of a counted piece; and of one during which an interrupt waits for IF.
_SLICE_INSTRUCTIONS = 200_000
_WINDOW_INSTRUCTIONS = 32


class Stopper:
    """Bounds the runs of one handle. ask() may be called from any thread."""

    def __init__(self, handle: Handle) -> None:
        self.control = ControlBlock(handle) if native.available() else None
        self._bound = 0
        self._before = 0
        if self.control is not None:
            handle.hook(HOOK_BLOCK, native.pointer(self.control.block_hook), user_data=self.control.address)

    def ask(self, mode: int) -> None:
        """Set the mode: RUN, STOP or WINDOW. It stays until it is changed."""
        if self.control is not None:
            self.control.mode.value = mode

    def bound(self, mode: int, blocks: int | None = None) -> int:
        """Set the mode for a run of at most so many blocks; return the instruction count to start it with.

        A single block is one of a single instruction: in an interrupt shadow.
        """
        self._before += self._spent()
        if self.control is None:
            most = _SLICE_INSTRUCTIONS if blocks is None else min(blocks, _SLICE_INSTRUCTIONS)
            self._bound = min(most, _WINDOW_INSTRUCTIONS) if mode == WINDOW else most
            return self._bound
        self._bound = _SLICE_BLOCKS if blocks is None else min(blocks, _SLICE_BLOCKS)
        self.control.mode.value = mode
        self.control.budget.value = self._bound
        return 0

    @property
    def executed(self) -> int:
        """Blocks executed so far, and what was charged; from any thread."""
        return self._before + self._spent()

    def charge(self, blocks: int) -> None:
        """Count something else for so many blocks."""
        self._before += blocks

    def _spent(self) -> int:
        """Return the blocks executed since bound(); without the native hook all that were allowed are taken for it."""
        return self._bound - (0 if self.control is None else max(0, self.control.budget.value))

    def forget_trail(self) -> None:
        """Empty the trail."""
        if self.control is not None:
            self.control.forget_trail()

    def trail(self) -> tuple[int, ...]:
        """Return the linear addresses of the last blocks, newest last."""
        blocks = self.control.trail() if self.control is not None else ()
        return tuple(address for address in blocks if address != CODE)
