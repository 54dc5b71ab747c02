"""The stock unicorn wheel's shared library, through ctypes: only what this engine needs.

Sources: unicorn/unicorn.h and unicorn/x86.h, in the wheel. The Python package is not imported: that takes 80 ms.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, byref, c_int, c_size_t, c_uint, c_uint32, c_uint64, c_void_p
from functools import cache

from pvh.errors import EngineError, NoEngine
from pvh.hints import Any

_ARCH_X86 = 4
# UC_MODE_32 would keep a 32-bit register interface for ever; the guest's mode is its own affair.
_MODE_64 = 1 << 3
# The default model has no SVM, and VMRUN is how a state is loaded.
_CPU_X86_EPYC = 35

_CTL_USE_EXITS = 4
_CTL_CPU_MODEL = 7
_CTL_TB_FLUSH = 10
_CTL_TLB_FLUSH = 11
_CTL_WRITE = 1

HOOK_INTR = 1 << 0
HOOK_INSN = 1 << 1
HOOK_CODE = 1 << 2
HOOK_BLOCK = 1 << 3
HOOK_MEM_READ_UNMAPPED = 1 << 4
HOOK_EDGE_GENERATED = 1 << 15

INS_CPUID = 113
INS_IN = 218
INS_OUT = 500
INS_SYSCALL = 699
INS_SYSENTER = 700

REG_CR0 = 50
REG_CR2 = 52
REG_CR3 = 53
REG_CR4 = 54
REG_RAX = 35
REG_RBX = 37
REG_RCX = 38
REG_RDX = 40
REG_RIP = 41
REG_MSR = 248
REG_MXCSR = 249
REG_FPCW = 246
REG_RFLAGS = 253
# rax rcx rdx rbx rsp rbp rsi rdi r8 ... r15
REG_GPRS = (35, 38, 40, 37, 44, 36, 43, 39, *range(106, 114))

PROT_READ = 1
PROT_WRITE = 2
PROT_EXEC = 4

ERR_OK = 0
ERR_FETCH_UNMAPPED = 8
ERR_FETCH_PROT = 14

IntrHook = CFUNCTYPE(None, c_void_p, c_uint32, c_void_p)
CodeHook = CFUNCTYPE(None, c_void_p, c_uint64, c_uint32, c_void_p)
VoidHook = CFUNCTYPE(None, c_void_p, c_void_p)
CpuidHook = CFUNCTYPE(c_int, c_void_p, c_void_p)
InHook = CFUNCTYPE(c_uint32, c_void_p, c_uint32, c_int, c_void_p)
OutHook = CFUNCTYPE(None, c_void_p, c_uint32, c_int, c_uint32, c_void_p)
MemHook = CFUNCTYPE(ctypes.c_bool, c_void_p, c_int, c_uint64, c_int, ctypes.c_int64, c_void_p)
NewCodeHook = CFUNCTYPE(None, c_uint64)
MmioReadHook = CFUNCTYPE(c_uint64, c_void_p, c_uint64, c_uint, c_void_p)
MmioWriteHook = CFUNCTYPE(None, c_void_p, c_uint64, c_uint, c_uint64, c_void_p)


class _Msr(ctypes.Structure):
    """uc_x86_msr: an MSR number and its value."""

    _fields_ = (("rid", c_uint32), ("value", c_uint64))


_PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "uc_version": (c_uint, (c_void_p, c_void_p)),
    "uc_open": (c_int, (c_int, c_int, POINTER(c_void_p))),
    "uc_close": (c_int, (c_void_p,)),
    "uc_strerror": (ctypes.c_char_p, (c_int,)),
    "uc_mem_map_ptr": (c_int, (c_void_p, c_uint64, c_uint64, c_uint32, c_void_p)),
    "uc_mem_unmap": (c_int, (c_void_p, c_uint64, c_uint64)),
    "uc_mmio_map": (c_int, (c_void_p, c_uint64, c_size_t, c_void_p, c_void_p, c_void_p, c_void_p)),
    "uc_emu_start": (c_int, (c_void_p, c_uint64, c_uint64, c_uint64, c_size_t)),
    "uc_emu_stop": (c_int, (c_void_p,)),
    "uc_reg_read": (c_int, (c_void_p, c_int, c_void_p)),
    "uc_reg_write": (c_int, (c_void_p, c_int, c_void_p)),
    "uc_hook_del": (c_int, (c_void_p, c_void_p)),
    # What follows these is variadic, which some ABIs pass otherwise (macOS on arm64: on the stack).
    "uc_ctl": (c_int, (c_void_p, c_uint)),
    "uc_hook_add": (c_int, (c_void_p, c_void_p, c_int, c_void_p, c_void_p, c_uint64, c_uint64)),
    "uc_context_alloc": (c_int, (c_void_p, POINTER(c_void_p))),
    "uc_context_free": (c_int, (c_void_p,)),
    "uc_context_size": (c_size_t, (c_void_p,)),
    "uc_context_save": (c_int, (c_void_p, c_void_p)),
    "uc_context_restore": (c_int, (c_void_p, c_void_p)),
}


def library_path() -> str | None:
    """Return the path of the wheel's shared library, or None where the wheel is not installed."""
    spec = importlib.util.find_spec("unicorn")
    names = {"darwin": "libunicorn.2.dylib", "win32": "unicorn.dll"}
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = os.path.join(place, "lib", names.get(sys.platform, "libunicorn.so.2"))
        if os.path.exists(path):
            return path
    return None


def _loaded(path: str) -> ctypes.CDLL:
    """Load a library whose functions are bound when they are called: all 7800 at once take 1 ms of a short run's 30."""
    if not hasattr(os, "RTLD_LAZY"):
        return ctypes.CDLL(path)
    dlopen = ctypes.CDLL(None).dlopen  # of itself ctypes always binds at once
    dlopen.restype = c_void_p
    return ctypes.CDLL(path, handle=dlopen(os.fsencode(path), os.RTLD_LAZY))  # without a handle ctypes says why not


@cache
def library() -> ctypes.CDLL:
    """Load the library once. Raises NoEngine where it is missing or cannot be used."""
    path = library_path()
    if path is None:
        raise NoEngine("the emulator needs the unicorn package, which is not installed", hint="pip install unicorn")
    try:
        lib = _loaded(path)
        for name, (restype, argtypes) in _PROTOTYPES.items():
            function = getattr(lib, name)
            function.restype, function.argtypes = restype, argtypes
    except (OSError, AttributeError) as error:
        raise NoEngine(f"the unicorn library cannot be used: {error}", path=path) from None
    version = lib.uc_version(None, None)
    if version >> 16 != 0x0201:
        found = f"{version >> 24}.{version >> 16 & 0xFF}.{version >> 8 & 0xFF}"
        raise NoEngine("this unicorn version is unknown", path=path, found=found, wanted="2.1")
    return lib


class Context:
    """A saved processor state of one handle: raw bytes of the library's own record."""

    def __init__(self, handle: Handle) -> None:
        self._lib = handle.lib
        self._uc = handle.uc
        address = c_void_p()
        handle.check(self._lib.uc_context_alloc(self._uc, byref(address)), "allocating a context")
        self._address = address.value
        self.size = int(self._lib.uc_context_size(self._uc))
        self.bytes = memoryview((ctypes.c_ubyte * self.size).from_address(self._address or 0)).cast("B")
        self.save()

    def save(self) -> None:
        """Copy the processor into the bytes."""
        self._lib.uc_context_save(self._uc, self._address)

    def restore(self) -> None:
        """Copy the bytes into the processor."""
        self._lib.uc_context_restore(self._uc, self._address)

    def free(self) -> None:
        """Give the memory back; the bytes are gone."""
        self._lib.uc_context_free(self._address)


class Handle:
    """One emulated processor with its address space (a uc_engine)."""

    def __init__(self) -> None:
        """Open one. Raises EngineError when the library refuses."""
        self.lib: Any = library()
        uc = c_void_p()
        self.check(self.lib.uc_open(_ARCH_X86, _MODE_64, byref(uc)), "opening the emulator")
        self.uc = uc.value
        self._keep: list[object] = []
        self._value = c_uint64()
        self._value_ref = byref(self._value)
        self._control(_CTL_CPU_MODEL, _CPU_X86_EPYC)
        # With an empty list of exits no address stops a run, whatever uc_emu_start is told.
        self._control(_CTL_USE_EXITS, 1)

    def close(self) -> None:
        """Give everything back."""
        if self.uc is not None:
            self.lib.uc_close(self.uc)
            self.uc = None
            self._keep.clear()

    def check(self, status: int, doing: str) -> None:
        """Raise EngineError for a failure status."""
        if status != ERR_OK:
            raise EngineError(f"unicorn failed {doing}: {self.error_text(status)}")

    def error_text(self, status: int) -> str:
        """Return the library's sentence for a status."""
        text: bytes = self.lib.uc_strerror(status)
        return text.decode("ascii", "replace")

    def _control(self, kind: int, *values: int) -> None:
        word = kind | len(values) << 26 | _CTL_WRITE << 30
        status = self.lib.uc_ctl(self.uc, word, *(c_int(value) for value in values))
        self.check(status, f"in uc_ctl({kind})")

    def flush_code(self) -> None:
        """Forget all translated code. Not from inside a hook."""
        self._control(_CTL_TB_FLUSH)

    def flush_tlb(self) -> None:
        """Forget all cached translations of addresses. Not from inside a hook."""
        self._control(_CTL_TLB_FLUSH)

    def map_memory(self, gpa: int, size: int, host: int, protection: int) -> None:
        """Put host memory at a guest-physical address."""
        self.check(self.lib.uc_mem_map_ptr(self.uc, gpa, size, protection, host), f"mapping memory at {gpa:#x}")

    def unmap(self, gpa: int, size: int) -> None:
        """Take memory or I/O away, whole regions only; the time it takes grows with size. Not from inside a hook."""
        self.check(self.lib.uc_mem_unmap(self.uc, gpa, size), f"unmapping {gpa:#x}")

    def map_io(self, gpa: int, size: int, read: Any, write: Any) -> None:
        """Give accesses to [gpa, gpa + size) to a MmioReadHook and a MmioWriteHook; their user data is gpa."""
        self._keep += (read, write)
        pointers = (ctypes.cast(read, c_void_p), gpa, ctypes.cast(write, c_void_p), gpa)
        self.check(self.lib.uc_mmio_map(self.uc, gpa, size, *pointers), f"mapping I/O at {gpa:#x}")

    def hook(
        self,
        kind: int,
        callback: Any,
        instruction: int | None = None,
        user_data: int = 0,
        within: tuple[int, int] = (1, 0),
    ) -> int:
        """Install a hook, for every address or from one to another; return what unhook() takes.

        callback is one of the hook types above or a function's address.
        """
        self._keep.append(callback)
        extra = () if instruction is None else (c_int(instruction),)
        out = c_void_p()
        status = self.lib.uc_hook_add(self.uc, byref(out), kind, callback, user_data, *within, *extra)
        self.check(status, f"adding hook {kind:#x}")
        return out.value or 0

    def unhook(self, hook: int) -> None:
        """Take a hook away; it may be called until the run ends. Code translated with it must be forgotten then."""
        self.check(self.lib.uc_hook_del(c_void_p(self.uc), c_void_p(hook)), "deleting a hook")

    def start(self, rip: int, count: int = 0) -> int:
        """Execute at rip (an offset in CS) until stopped, or count instructions; return the library's status."""
        status: int = self.lib.uc_emu_start(self.uc, rip, 0, 0, count)
        return status

    def stop(self) -> None:
        """Make start() return at the end of the current block. Not from inside IN, OUT or MMIO hooks."""
        self.lib.uc_emu_stop(self.uc)

    def read(self, register: int) -> int:
        """Return a register of up to 64 bits."""
        self._value.value = 0
        self.lib.uc_reg_read(self.uc, register, self._value_ref)
        return self._value.value

    def write(self, register: int, value: int) -> None:
        """Set a register of up to 64 bits."""
        self._value.value = value
        self.lib.uc_reg_write(self.uc, register, self._value_ref)

    def read_msr(self, index: int) -> int:
        """Return an MSR as the library keeps it. In a guest it must not be intercepted."""
        record = _Msr(index, 0)
        self.lib.uc_reg_read(self.uc, REG_MSR, byref(record))
        return int(record.value)

    def write_msr(self, index: int, value: int) -> None:
        """Set an MSR the library keeps. In a guest it must not be intercepted."""
        self.lib.uc_reg_write(self.uc, REG_MSR, byref(_Msr(index, value)))


HookFactory = Callable[..., Any]
