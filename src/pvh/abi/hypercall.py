"""Hypercall numbers (xen/include/public/xen.h) and domain ids."""

PLATFORM_OP = 7
MEMORY_OP = 12
MULTICALL = 13
SET_TIMER_OP = 15
XEN_VERSION = 17
CONSOLE_IO = 18
GRANT_TABLE_OP = 20
VM_ASSIST = 21
VCPU_OP = 24
SCHED_OP = 29
EVENT_CHANNEL_OP = 32
PHYSDEV_OP = 33
HVM_OP = 34
SYSCTL = 35
DOMCTL = 36
XENPMU_OP = 40
HYPFS_OP = 42

NAMES = {
    PLATFORM_OP: "platform_op",
    MEMORY_OP: "memory_op",
    MULTICALL: "multicall",
    SET_TIMER_OP: "set_timer_op",
    XEN_VERSION: "xen_version",
    CONSOLE_IO: "console_io",
    GRANT_TABLE_OP: "grant_table_op",
    VM_ASSIST: "vm_assist",
    VCPU_OP: "vcpu_op",
    26: "mmuext_op",
    27: "xsm_op",
    SCHED_OP: "sched_op",
    EVENT_CHANNEL_OP: "event_channel_op",
    PHYSDEV_OP: "physdev_op",
    HVM_OP: "hvm_op",
    SYSCTL: "sysctl",
    DOMCTL: "domctl",
    39: "argo_op",
    XENPMU_OP: "xenpmu_op",
    41: "dm_op",
    HYPFS_OP: "hypfs_op",
}

DOMID_FIRST_RESERVED = 0x7FF0
DOMID_SELF = 0x7FF0

# The hypercall page: stub i at i * 32 (xen/arch/x86/hvm/{vmx/vmx,svm/svm}.c).
STUB_SIZE = 32
STUBS = 128
IRET = 23  # its stub is ud2

# Interface versions of the calls for control domains (Xen 4.20's)
PLATFORM_VERSION = 0x03000000
SYSCTL_VERSION = 0x15
DOMCTL_VERSION = 0x17

# multicall_entry: op, result, args[6]
MULTICALL_64 = "<8Q"
MULTICALL_32 = "<8I"
