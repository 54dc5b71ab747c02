"""hvm_op commands and layouts (xen/include/public/hvm/hvm_op.h)."""

SET_PARAM = 0
GET_PARAM = 1
FLUSH_TLBS = 5
PAGETABLE_DYING = 9
GET_TIME = 10
XENTRACE = 11
GET_MEM_TYPE = 15
SET_EVTCHN_UPCALL_VECTOR = 23
GUEST_REQUEST_VM_EVENT = 24
ALTP2M = 25

PAGETABLE = "<H6xQ"  # domid, gpa
TRACE = "<HH28x"  # event, extra_bytes, extra[28]
MOST_TRACED = 28
TRACE_EVENT_BITS = 12
MEM_TYPE = "<HH4xQ"  # domid, mem_type, pfn
MEM_RAM_RW = 0
MEM_MMIO_DM = 2
UPCALL_VECTOR = "<IB3x"  # vcpu, vector
FIRST_VECTOR = 0x10  # lower ones are exceptions
