"""shared_info, vcpu_info and vcpu_time_info (xen/include/public/xen.h, arch-x86/xen*.h). Offsets in bytes."""

from pvh.record import dataclass

VCPU_INFO_SIZE = 64
VCPU_INFO_SLOTS = 32
UPCALL_PENDING = 0
UPCALL_MASK = 1
VCPU_TIME_INFO = 32  # offset in vcpu_info, both widths

# version, pad, tsc_timestamp, system_time, tsc_to_system_mul, tsc_shift, flags, pad
TIME_INFO = "<IIQQIbBH"
TIME_TSC_STABLE = 1 << 0


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are for guests of one width. word: bytes of an unsigned long."""

    word: int
    pending_sel: int
    evtchn_pending: int
    evtchn_mask: int
    wc_version: int
    wc_sec_hi: int
    ports: int


LAYOUT_64 = Layout(8, 8, 0x800, 0xA00, 0xC00, 0xC0C, 4096)
LAYOUT_32 = Layout(4, 4, 0x800, 0x880, 0x900, 0x924, 1024)
