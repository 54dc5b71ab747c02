"""The capstone wheel's shared library, through ctypes: where instructions begin and what they are called, no more.

Source: capstone/capstone.h, in the wheel. The Python package is not imported: it brings every architecture's constants,
which takes ten times as long as the library, and seconds of a start inside an emulated machine. An instruction's record
stays opaque but for the id that it begins with.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from functools import cache

from pvh.errors import EngineError
from pvh.hints import Any

_ARCH_X86 = 3
_MODES = {32: 1 << 2, 64: 1 << 3}
_OPT_SKIPDATA, _OPT_ON = 5, 3
_MAJOR = 5

_PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "cs_version": (c_uint, (c_void_p, c_void_p)),
    "cs_open": (c_int, (c_int, c_int, POINTER(c_size_t))),
    "cs_close": (c_int, (POINTER(c_size_t),)),
    "cs_option": (c_int, (c_size_t, c_int, c_size_t)),
    "cs_strerror": (c_char_p, (c_int,)),
    "cs_malloc": (c_void_p, (c_size_t,)),
    "cs_free": (None, (c_void_p, c_size_t)),
    "cs_disasm_iter": (ctypes.c_bool, (c_size_t, c_void_p, c_void_p, c_void_p, c_void_p)),
    "cs_insn_name": (c_char_p, (c_size_t, c_uint)),
}


def library_path() -> str | None:
    """Return the wheel's library, or the system's name for it where the package has none; None without the package."""
    spec = importlib.util.find_spec("capstone")
    if spec is None:
        return None
    places = (os.path.join(place, "lib", "libcapstone.so") for place in spec.submodule_search_locations or ())
    return next(filter(os.path.exists, places), f"libcapstone.so.{_MAJOR}")


@cache
def _library(path: str) -> ctypes.CDLL:
    """Load the library once. Raises EngineError where it cannot be used."""
    try:
        lib = ctypes.CDLL(path)
        for name, (restype, argtypes) in _PROTOTYPES.items():
            function = getattr(lib, name)
            function.restype, function.argtypes = restype, argtypes
    except (OSError, AttributeError) as error:
        raise EngineError(f"the capstone library cannot be used: {error}", path=path) from None
    version = lib.cs_version(None, None)
    if version >> 8 != _MAJOR:
        found = f"{version >> 8}.{version & 0xFF}"
        raise EngineError("this capstone version is unknown", path=path, found=found, wanted=str(_MAJOR))
    return lib


class Decoder:
    """Decodes code of one width; what is no instruction counts as one of a byte without a name."""

    def __init__(self, path: str, bits: int) -> None:
        """Open the library for 32- or 64-bit code. Raises EngineError where it cannot be used."""
        self._lib: Any = _library(path)
        self._handle = c_size_t()
        status = self._lib.cs_open(_ARCH_X86, _MODES[bits], byref(self._handle))
        status = status or self._lib.cs_option(self._handle, _OPT_SKIPDATA, _OPT_ON)
        if status:
            raise EngineError(f"capstone cannot be used: {self._lib.cs_strerror(status).decode('ascii', 'replace')}")
        self._instruction = self._lib.cs_malloc(self._handle)

    def close(self) -> None:
        """Give everything back."""
        self._lib.cs_free(self._instruction, 1)
        self._lib.cs_close(byref(self._handle))

    def name_at(self, code: bytes, start: int, position: int) -> str:
        """Return the mnemonic of the instruction at a position, decoding from start; empty if none begins there."""
        base = ctypes.cast(c_char_p(code), c_void_p).value or 0  # the bytes themselves, not a copy
        at, left, address = c_void_p(base + start), c_size_t(len(code) - start), c_uint64(start)
        pointers = byref(at), byref(left), byref(address)  # each call moves all three behind an instruction
        more = True
        while more and address.value < position:
            more = self._lib.cs_disasm_iter(self._handle, *pointers, self._instruction)
        if address.value != position or not self._lib.cs_disasm_iter(self._handle, *pointers, self._instruction):
            return ""
        name = self._lib.cs_insn_name(self._handle, c_uint.from_address(self._instruction).value)
        return name.decode("ascii") if name else ""
