"""Variation: what the ABI leaves open, where a boot is to have it otherwise than libxenguest does."""

from __future__ import annotations

from pvh.record import dataclass


@dataclass(frozen=True, slots=True)
class Variation:
    """Choices that no kernel may rely on. The default is libxenguest's guest.

    registers  what vCPU 0 has otherwise at entry: name and value. A name is a field of build/cpu_state.py, a general
               register, an MSR by its number such as `msr.c0000082`, or a part of a segment or table register such
               as `ds.selector`; rflags adds its bits
    poison     seed of what fills RAM that nothing is loaded to (-1: ones), but for page 0; None: zeroes
    null       page 0 is filled with ones, where nothing is loaded to it
    edge       start_info is the last bytes of RAM below 4 GiB, as short as its version allows
    scatter    seed of where start_info's parts lie, each at the end of a page; None: one behind the other
    version    start_info.version of an `abi` v1
    tail       bytes of ones that a later version has behind what version 1 has
    mapped     start_info has a memory map, if its version does
    holes      (start, size) of RAM that is not there; whole pages
    foreign    (start, size, type) of RAM that is something else, of which a kernel knows nothing; whole pages
    pieces     in how many entries the memory map shows the largest piece of RAM
    empties    the memory map has entries of size 0
    disorder   seed of the order of the memory map's entries; None: sorted
    acpi       there are ACPI tables
    shift      bytes by which the image lies above its p_paddr, as PHYS32_RELOC allows
    """

    registers: tuple[tuple[str, int], ...] = ()
    poison: int | None = None
    null: bool = False
    edge: bool = False
    scatter: int | None = None
    version: int = 1
    tail: int = 0
    mapped: bool = True
    holes: tuple[tuple[int, int], ...] = ()
    foreign: tuple[tuple[int, int, int], ...] = ()
    pieces: int = 1
    empties: bool = False
    disorder: int | None = None
    acpi: bool = True
    shift: int = 0

    @property
    def missing(self) -> tuple[tuple[int, int], ...]:
        """Start and end of what is no RAM where there would be some."""
        return tuple((start, start + size) for start, size, *_ in sorted((*self.holes, *self.foreign)))


AS_XEN = Variation()
