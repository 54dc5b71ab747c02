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

REGISTER_INFO = "<QII"  # gfn, offset, rsvd
SINGLESHOT = "<QI"  # timeout_abs_ns, flags; 64-bit callers have four bytes of padding behind
RUNSTATE_RUNNING = 0
