"""The part of Linux's KVM interface that is used: request numbers, capabilities, layouts, one way to call.

Source: linux/include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h; semantics in Documentation/virt/kvm/api.rst.
A request number is _IO/_IOR/_IOW(0xae, nr, size) as asm-generic/ioctl.h composes it.
"""

from __future__ import annotations

import ctypes
import os
from fcntl import ioctl as _ioctl
from struct import Struct

from pvh.errors import EngineError

API_VERSION = 12

# /dev/kvm
GET_API_VERSION = 0xAE00
CREATE_VM = 0xAE01
CHECK_EXTENSION = 0xAE03
GET_VCPU_MMAP_SIZE = 0xAE04
GET_SUPPORTED_CPUID = 0xC008AE05

# a virtual machine
CREATE_VCPU = 0xAE41
SET_USER_MEMORY_REGION = 0x4020AE46
SET_TSS_ADDR = 0xAE47
SET_IDENTITY_MAP_ADDR = 0x4008AE48
XEN_HVM_CONFIG = 0x4038AE7A
ENABLE_CAP = 0x4068AEA3
SIGNAL_MSI = 0x4020AEA5
X86_SET_MSR_FILTER = 0x4188AEC6

# a vCPU
RUN = 0xAE80
GET_REGS = 0x8090AE81
SET_REGS = 0x4090AE82
GET_SREGS = 0x8138AE83
SET_SREGS = 0x4138AE84
TRANSLATE = 0xC018AE85
GET_MSRS = 0xC008AE88
SET_MSRS = 0x4008AE89
SET_FPU = 0x41A0AE8D
SET_CPUID2 = 0x4008AE90
GET_MP_STATE = 0x8004AE98
SET_MP_STATE = 0x4004AE99
NMI = 0xAE9A
SET_GUEST_DEBUG = 0x4048AE9B
GET_VCPU_EVENTS = 0x8040AE9F
SET_VCPU_EVENTS = 0x4040AEA0
GET_DEBUGREGS = 0x8080AEA1
SET_DEBUGREGS = 0x4080AEA2
GET_TSC_KHZ = 0xAEA3
SET_XCRS = 0x4188AEA7

CAP_XEN_HVM = 38  # a bit mask of XEN_HVM_CONFIG_*
CAP_TSC_DEADLINE_TIMER = 72
CAP_SPLIT_IRQCHIP = 121
CAP_X86_USER_SPACE_MSR = 188
CAP_ENFORCE_PV_FEATURE_CPUID = 190

# What the engine cannot do without, by the Linux release that brought it to x86.
NEEDED = {
    66: ("KVM_CAP_MAX_VCPUS", "3.1"),
    61: ("KVM_CAP_GET_TSC_KHZ", "2.6.39"),
    77: ("KVM_CAP_SIGNAL_MSI", "3.5"),
    CAP_SPLIT_IRQCHIP: ("KVM_CAP_SPLIT_IRQCHIP", "4.4"),
    136: ("KVM_CAP_IMMEDIATE_EXIT", "4.13"),
    74: ("KVM_CAP_SYNC_REGS", "4.17"),
    CAP_X86_USER_SPACE_MSR: ("KVM_CAP_X86_USER_SPACE_MSR", "5.10"),
    189: ("KVM_CAP_X86_MSR_FILTER", "5.10"),
    CAP_ENFORCE_PV_FEATURE_CPUID: ("KVM_CAP_ENFORCE_PV_FEATURE_CPUID", "5.10"),
}

XEN_HVM_CONFIG_INTERCEPT_HCALL = 1 << 1
MSR_EXIT_REASON_UNKNOWN = 1 << 1
MSR_EXIT_REASON_FILTER = 1 << 2
MSR_FILTER_READ_WRITE = 3
MP_STATE_RUNNABLE = 0
MP_STATE_UNINITIALIZED = 1
MP_STATE_INIT_RECEIVED = 2
MP_STATE_HALTED = 3

USER_MEMORY_REGION = Struct("<IIQQQ")  # slot, flags, guest_phys_addr, memory_size, userspace_addr
MSI = Struct("<IIII16x")  # address_lo, address_hi, data, flags
TRANSLATION = Struct("<QQB7x")  # linear_address, physical_address, valid
MSR_FILTER = Struct("<I4xIII4xQ360x")  # flags (0: allow by default); the first of 16 ranges: flags, nmsrs, base, bitmap
XEN_CONFIG = Struct("<II48x")  # flags, msr (0: none, so no page is written by the kernel)
MSR_LIST_HEADER = Struct("<II")  # nmsrs, pad
MSR_ENTRY = Struct("<IIQ")  # index, reserved, data

EXIT_IO = 2
EXIT_DEBUG = 4
EXIT_HLT = 5
EXIT_MMIO = 6
EXIT_IRQ_WINDOW_OPEN = 7
EXIT_SHUTDOWN = 8
EXIT_FAIL_ENTRY = 9
EXIT_INTERNAL_ERROR = 17
EXIT_X86_RDMSR = 29
EXIT_X86_WRMSR = 30
EXIT_XEN = 34

INTERNAL_ERRORS = {
    1: "KVM_INTERNAL_ERROR_EMULATION",
    2: "KVM_INTERNAL_ERROR_SIMUL_EX",
    3: "KVM_INTERNAL_ERROR_DELIVERY_EV",
    4: "KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON",
}

# struct kvm_run: byte offsets, and the layouts of the union at RUN_UNION
RUN_REQUEST_INTERRUPT_WINDOW = 0
RUN_IMMEDIATE_EXIT = 1
RUN_EXIT_REASON = 8
RUN_IF_FLAG = 13
RUN_UNION = 0x20
RUN_VALID_REGS = 0x120
RUN_DIRTY_REGS = 0x128
RUN_REGS = 0x130  # struct kvm_sync_regs: kvm_regs, kvm_sregs, ...
RUN_SREGS = 0x1C0
RUN_IO = Struct("<BBHIQ")  # direction (1 out), size, port, count, data_offset
RUN_MMIO = Struct("<Q8sIB")  # phys_addr, data, len, is_write
RUN_DEBUG_PC = RUN_UNION + 8
RUN_MMIO_DATA = RUN_UNION + 8
RUN_MSR = Struct("<B7xIIQ")  # error, reason, index, data
RUN_MSR_DATA = RUN_UNION + 16
RUN_INTERNAL = Struct(
    "<IIQB15s"
)  # suberror, ndata, and for EMULATION: flags (bit 0: bytes follow), insn_size, insn_bytes
RUN_XEN = Struct("<I4xIIQQ6Q")  # type, longmode, cpl, input, result, params
RUN_XEN_RESULT = RUN_UNION + 24
XEN_HCALL = 1

SYNC_REGS = 1
SYNC_SREGS = 2

U32 = Struct("<I")
U64 = Struct("<Q")


def call(fd: int, request: int, argument: int | bytes | bytearray = 0) -> int:
    """Make the ioctl on a KVM descriptor; the kernel may fill in a bytearray. Raises OSError."""
    if isinstance(argument, int):
        return int(_ioctl(fd, request, argument))
    return int(_ioctl(fd, request, argument if isinstance(argument, bytearray) else bytearray(argument)))


def must(what: str, fd: int, request: int, argument: int | bytes | bytearray = 0) -> int:
    """Make the ioctl; a refusal becomes EngineError saying that KVM refused `what`."""
    try:
        return call(fd, request, argument)
    except OSError as error:
        raise EngineError(
            f"KVM refused {what}: {os.strerror(error.errno or 0).lower()}",
            hint="try --engine emulator; pvh doctor tells what this KVM can do",
        ) from None


def set_tss_address(vm: int, address: int) -> None:
    """Tell a virtual machine where KVM may keep its TSS. Not by fcntl: it takes signed 32-bit arguments only."""
    ioctl = ctypes.CDLL(None, use_errno=True).ioctl
    if ioctl(vm, ctypes.c_ulong(SET_TSS_ADDR), ctypes.c_ulong(address)):
        raise EngineError(f"KVM refused the address of its TSS: {os.strerror(ctypes.get_errno()).lower()}")


def enable_cap(fd: int, number: int, argument: int) -> None:
    """Switch on a capability of a virtual machine or a vCPU. Raises EngineError."""
    must(f"capability {number}", fd, ENABLE_CAP, Struct("<IIQ88x").pack(number, 0, argument))
