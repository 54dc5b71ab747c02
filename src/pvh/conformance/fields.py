"""Names for guest memory that start_info leads to: `the type of entry 5 of the memory map`."""

from __future__ import annotations

from pvh.conformance.monitor.entry_memory import entry_memory
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.build.image import Image

# Offsets of fields, by xen/include/public/arch-x86/hvm/start_info.h.
_START_INFO = {
    0: "magic", 4: "version", 8: "flags", 12: "nr_modules", 16: "modlist_paddr", 24: "cmdline_paddr", 32: "rsdp_paddr",
    40: "memmap_paddr", 48: "memmap_entries", 52: "reserved",
}  # fmt: skip
_ROWS = {
    "the module list": (32, {0: "paddr", 8: "size", 16: "cmdline_paddr", 24: "reserved"}),
    "the memory map": (24, {0: "addr", 8: "size", 16: "type", 20: "reserved"}),
}


class Fields:
    """What start_info of a guest that has not run leads to."""

    def __init__(self, image: Image) -> None:
        self._there = entry_memory(image).guarded

    def name(self, gpa: int) -> str:
        """Return what stands at a guest-physical address; "" for what start_info does not lead to."""
        for item in self._there:
            if item.start <= gpa < item.end:
                return _within(item.name, gpa - item.start)
        return ""


def _within(name: str, offset: int) -> str:
    if name in _ROWS:
        size, fields = _ROWS[name]
        return f"the {_field(fields, offset % size)} of entry {offset // size} of {name}"
    if name == "start_info":
        return f"start_info.{_field(_START_INFO, offset)}"
    return f"byte {offset} of {'the command line' if name == 'cmdline' else name}"


def _field(fields: dict[int, str], offset: int) -> str:
    start = max(start for start in fields if start <= offset)
    return fields[start] + (f"+{offset - start}" if offset > start else "")
