"""event_channel_op commands and layouts (xen/include/public/event_channel.h)."""

BIND_INTERDOMAIN = 0
BIND_VIRQ = 1
BIND_PIRQ = 2
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
NR_VIRQS = 24

STATUS_CLOSED = 0
STATUS_UNBOUND = 1
STATUS_INTERDOMAIN = 2
STATUS_PIRQ = 3
STATUS_VIRQ = 4
STATUS_IPI = 5

UNBOUND = "<HHI"  # dom, remote_dom, port
INTERDOMAIN = "<H2xII"  # remote_dom, remote_port, local_port
STATUS_ASKED = "<H2xI"  # dom, port; status and vcpu follow as u32, then what depends on the status
STATUS_PEER = "<H2xI"  # of an interdomain channel: dom, port

MOST_PORTS = 1024  # libxl lets a domain have ports up to 1023 unless told otherwise (event_channels= of xl.cfg)
PORTS_ADDED = 64  # Xen makes its records of ports in pages of that many (EVTCHNS_PER_BUCKET)
