"""What KVM keeps of a vCPU, read and written as a whole: for snapshots, while no vCPU is inside KVM_RUN.

Each part is the kernel's own record, as bytes (Documentation/virt/kvm/api.rst). An exit must have been completed before
(ibid., 5., "the kvm_run structure": by KVM_RUN with immediate_exit), which KvmVcpu.run() does before it returns.
Time stamp counters are set by their offset from the host's: KVM takes a TSC that is written for one to be synchronised
with the last one written, if they are within a second (kvm/x86.c, kvm_synchronize_tsc).
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from struct import Struct, unpack_from

from pvh.abi import x86
from pvh.engines.kvm import ioctl as kvm
from pvh.engines.kvm.state import read_msr
from pvh.errors import EngineError
from pvh.hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_GET_MSR_INDEX_LIST = 0xC004AE02
_MOST_MSRS = 1024
_MOST_AT_ONCE = 255  # MAX_IO_MSRS is 256 (Linux, arch/x86/kvm/x86.c), and no call may have more
_GET_DEVICE_ATTR, _SET_DEVICE_ATTR = 0x4018AEE2, 0x4018AEE1
_DEVICE_ATTR = Struct("<IIQQ")  # flags, group, attr, addr; group 0, attr 0: KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET
_CAP_SREGS2, _CAP_XSAVE2 = 200, 208
_XSAVE_SIZE = 4096

Part = tuple[str, int, int, int]  # what it is, the requests that read and write it, its bytes
_SREGS: Part = ("segment and control registers", kvm.GET_SREGS, kvm.SET_SREGS, 312)
_SREGS2: Part = ("segment and control registers", 0x8140AECC, 0x4140AECD, 320)  # with the PDPTEs of PAE paging
_REGS: Part = ("general registers", kvm.GET_REGS, kvm.SET_REGS, 144)
_XCRS: Part = ("extended control registers", 0x8188AEA6, kvm.SET_XCRS, 392)
_LAPIC: Part = ("local APIC", 0x8400AE8E, 0x4400AE8F, 1024)
_EVENTS: Part = ("pending events", kvm.GET_VCPU_EVENTS, kvm.SET_VCPU_EVENTS, 64)
_DEBUGREGS: Part = ("debug registers", kvm.GET_DEBUGREGS, kvm.SET_DEBUGREGS, 128)
_MP_STATE: Part = ("run state", kvm.GET_MP_STATE, kvm.SET_MP_STATE, 4)
_GET_XSAVE, _GET_XSAVE2, _SET_XSAVE = 0x9000AEA4, 0x9000AECF, 0x5000AEA5

# MTRRs have not always been in KVM's list (Intel SDM vol. 3, 12.11.2).
_MTRRS = (*range(0x200, 0x210), 0x250, 0x258, 0x259, *range(0x268, 0x270), x86.MSR_MTRR_DEF_TYPE)
_TSC_DEADLINE = 0x6E0  # heeded only once the local APIC's timer is in that mode
# Hyper-V's and KVM's own: guests cannot reach them (vm.py, KVM_CAP_ENFORCE_PV_FEATURE_CPUID). The TSC has its offset.
_NOT_KEPT = frozenset((x86.MSR_TSC, 0x11, 0x12, *range(0x40000000, 0x40000200), *range(0x4B564D00, 0x4B564E00)))


class Keeper:
    """Reads and writes vCPUs of one virtual machine."""

    def __init__(self, dev: int, vm: int) -> None:
        """Find out what there is to keep. Raises EngineError."""
        size = max(_XSAVE_SIZE, kvm.call(vm, kvm.CHECK_EXTENSION, _CAP_XSAVE2))
        xsave = ("FPU state", _GET_XSAVE2 if size > _XSAVE_SIZE else _GET_XSAVE, _SET_XSAVE, size)
        sregs = _SREGS2 if kvm.call(vm, kvm.CHECK_EXTENSION, _CAP_SREGS2) else _SREGS
        # In the order of writing. The local APIC needs APIC_BASE, of sregs; nothing may change the last two.
        self._before_msrs: tuple[Part, ...] = (sregs, _REGS, xsave, _XCRS, _LAPIC)
        self._behind_msrs: tuple[Part, ...] = (_DEBUGREGS, _EVENTS, _MP_STATE)
        self._listed = _listed(dev)
        self._kept: tuple[int, ...] | None = None

    def capture(self, fd: int) -> dict[str, Any]:
        """Return all but the TSC. Raises EngineError."""
        mp_state = _read(fd, _MP_STATE)  # first: KVM has the vCPU take an INIT or a SIPI as it is asked
        state: dict[str, Any] = {part[0]: _read(fd, part) for part in (*self._before_msrs, *self._behind_msrs[:-1])}
        if self._kept is None:
            self._kept = tuple(index for index in self._listed if _goes_back(fd, index))
        state["MSRs"] = {index: read_msr(fd, index) for index in self._kept}
        return state | {_MP_STATE[0]: mp_state}

    def apply(self, fd: int, state: dict[str, Any]) -> None:
        """Write what capture() returned; the TSC is right already. Raises EngineError."""
        _read(fd, _MP_STATE)  # an INIT or a SIPI on its way is taken by what is overwritten now
        for part in self._before_msrs:
            _write(fd, part, state)
        _write_msrs(fd, state["MSRs"])
        for part in self._behind_msrs:
            _write(fd, part, state)


def tsc_offset(fd: int) -> int:
    """Return what is added to the host's TSC to make a vCPU's, modulo 2**64. Raises EngineError."""
    value = ctypes.c_uint64()
    _attribute("reading the TSC's offset (Linux 5.16 or later has it)", fd, _GET_DEVICE_ATTR, value)
    return value.value


def set_tsc_offset(fd: int, offset: int) -> None:
    """Set it. Raises EngineError."""
    _attribute("the TSC's offset", fd, _SET_DEVICE_ATTR, ctypes.c_uint64(offset))


def finish(fd: int, run: Any) -> None:
    """Complete an exit that nobody answers any more, so that the next KVM_RUN does not do so with other registers."""
    run[kvm.RUN_IMMEDIATE_EXIT] = 1
    with suppress(OSError):  # EINTR: it is done
        for _ in range(4096):  # a string instruction, a page long: an exit each
            kvm.call(fd, kvm.RUN)
    run[kvm.RUN_IMMEDIATE_EXIT] = 0


def _attribute(what: str, fd: int, request: int, value: ctypes.c_uint64) -> None:
    kvm.must(what, fd, request, _DEVICE_ATTR.pack(0, 0, 0, ctypes.addressof(value)))


def _listed(dev: int) -> tuple[int, ...]:
    """Return the MSRs that may be state (KVM_GET_MSR_INDEX_LIST), in the order of writing."""
    answer = bytearray(4 + 4 * _MOST_MSRS)
    kvm.U32.pack_into(answer, 0, _MOST_MSRS)
    kvm.must("the list of MSRs", dev, _GET_MSR_INDEX_LIST, answer)
    count = kvm.U32.unpack_from(answer)[0]
    listed: Iterable[int] = unpack_from(f"<{count}I", answer, 4)
    return tuple(sorted({*listed, *_MTRRS} - _NOT_KEPT, key=lambda index: (index == _TSC_DEADLINE, index)))


def _goes_back(fd: int, index: int) -> bool:
    """Tell whether an MSR can be read, and written with what it holds."""
    request = bytearray(kvm.MSR_LIST_HEADER.pack(1, 0) + kvm.MSR_ENTRY.pack(index, 0, 0))
    try:
        return kvm.call(fd, kvm.GET_MSRS, request) == 1 and kvm.call(fd, kvm.SET_MSRS, request) == 1
    except OSError:
        return False


def _write_msrs(fd: int, values: dict[int, int]) -> None:
    """Write MSRs, as many at a time as KVM takes: it sets them in order up to the first that it refuses."""
    rest = list(values.items())
    while rest:
        some, rest = rest[:_MOST_AT_ONCE], rest[_MOST_AT_ONCE:]
        entries = b"".join(kvm.MSR_ENTRY.pack(index, 0, value) for index, value in some)
        done = kvm.must("the MSRs", fd, kvm.SET_MSRS, kvm.MSR_LIST_HEADER.pack(len(some), 0) + entries)
        if done < len(some):
            index, value = some[done]
            raise EngineError(f"KVM refused to set MSR {index:#x} to {value:#x}")


def _read(fd: int, part: Part) -> bytes:
    name, get, _, size = part
    record = bytearray(size)
    kvm.must(f"reading the {name}", fd, get, record)
    return bytes(record)


def _write(fd: int, part: Part, state: dict[str, Any]) -> None:
    name, _, put, _ = part
    kvm.must(f"the {name}", fd, put, state[name])
