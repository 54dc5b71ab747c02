"""vcpu_op commands and layouts (xen/include/public/vcpu.h)."""

INITIALISE = 0
UP = 1
DOWN = 2
IS_UP = 3
GET_RUNSTATE_INFO = 4
REGISTER_RUNSTATE_MEMORY_AREA = 5
SET_PERIODIC_TIMER = 6
STOP_PERIODIC_TIMER = 7
SET_SINGLESHOT_TIMER = 8
STOP_SINGLESHOT_TIMER = 9
REGISTER_VCPU_INFO = 10
SEND_NMI = 11
GET_PHYSID = 12
REGISTER_VCPU_TIME_MEMORY_AREA = 13
REGISTER_RUNSTATE_PHYS_AREA = 14
REGISTER_VCPU_TIME_PHYS_AREA = 15

REGISTER_INFO = "<QII"  # gfn, offset, rsvd
PERIODIC = "<Q"  # period_ns
SINGLESHOT_64, SINGLESHOT_32 = "<QI4x", "<QI"  # timeout_abs_ns, flags
# A linear address; 32-bit callers have a pointer there, though the union it is in is 8 bytes long.
MEMORY_AREA_64, MEMORY_AREA_32 = "<Q", "<I4x"
PHYS_AREA = "<Q"
NO_AREA = (1 << 64) - 1  # as a guest-physical address: unregister

# vcpu_runstate_info: state, state_entry_time, time[4]; times in ns
RUNSTATE_64, RUNSTATE_32 = "<i4xQ4Q", "<iQ4Q"
RUNSTATE_ENTRY_64, RUNSTATE_ENTRY_32 = 8, 4  # offset of state_entry_time
RUNSTATE_UPDATE = 1 << 63  # in state_entry_time: the rest is being written

RUNSTATE_RUNNING = 0
RUNSTATE_RUNNABLE = 1
RUNSTATE_BLOCKED = 2
RUNSTATE_OFFLINE = 3

SHORTEST_PERIOD_NS = 1_000_000
LONGEST_PERIOD_NS = (1 << 62) - 1  # Xen's STIME_DELTA_MAX
