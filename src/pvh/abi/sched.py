"""sched_op commands, layouts, shutdown reasons (xen/include/public/sched.h)."""

YIELD = 0
BLOCK = 1
SHUTDOWN = 2
POLL = 3
REMOTE_SHUTDOWN = 4
SHUTDOWN_CODE = 5
WATCHDOG = 6

POLL_32 = "<IIQ"  # ports, nr_ports, timeout: absolute ns, 0 for none
POLL_64 = "<QI4xQ"
MOST_POLLED = 128
REMOTE = "<H2xI"  # domid, reason
WATCHDOG_ARG = "<II"  # id, timeout in seconds
WATCHDOGS = 2  # Xen's NR_DOMAIN_WATCHDOG_TIMERS

SHUTDOWN_POWEROFF = 0
SHUTDOWN_REBOOT = 1
SHUTDOWN_SUSPEND = 2
SHUTDOWN_CRASH = 3
SHUTDOWN_WATCHDOG = 4
SHUTDOWN_SOFT_RESET = 5

SHUTDOWN_NAMES = ("poweroff", "reboot", "suspend", "crash", "watchdog", "soft_reset")
