"""event_channel_op commands (xen/include/public/event_channel.h)."""

BIND_INTERDOMAIN = 0
BIND_VIRQ = 1
CLOSE = 3
SEND = 4
STATUS = 5
ALLOC_UNBOUND = 6
BIND_IPI = 7
BIND_VCPU = 8
UNMASK = 9
RESET = 10
INIT_CONTROL = 11

VIRQ_TIMER = 0
VIRQ_DEBUG = 1
VIRQ_XENPMU = 13
