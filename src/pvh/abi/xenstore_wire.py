"""The xenstore protocol (xen/include/public/io/xs_wire.h, docs/misc/xenstore.txt, docs/misc/xenstore-ring.txt)."""

from pvh.abi import errno

# Types of messages
CONTROL = 0
DIRECTORY = 1
READ = 2
GET_PERMS = 3
WATCH = 4
UNWATCH = 5
TRANSACTION_START = 6
TRANSACTION_END = 7
INTRODUCE = 8
RELEASE = 9
GET_DOMAIN_PATH = 10
WRITE = 11
MKDIR = 12
RM = 13
SET_PERMS = 14
WATCH_EVENT = 15
ERROR = 16
IS_DOMAIN_INTRODUCED = 17
RESUME = 18
SET_TARGET = 19
RESET_WATCHES = 21
DIRECTORY_PART = 22

HEADER = "<IIII"  # type, req_id, tx_id, len of what follows in bytes
HEADER_SIZE = 16
PAYLOAD_MAX = 4096
ABS_PATH_MAX = 3072
REL_PATH_MAX = 2048

# xs_wire.h lists the errors that have a name on the wire; any other is told as EINVAL.
ERRORS = {
    number: errno.NAMES[number]
    for number in (
        *(errno.EINVAL, errno.EACCES, errno.EEXIST, errno.ENOENT, errno.ENOMEM, errno.ENOSPC, errno.EIO),
        *(errno.ENOSYS, errno.EBUSY, errno.EAGAIN, errno.E2BIG, errno.EPERM),
    )
}

# The page of struct xenstore_domain_interface: offsets. Indexes run freely.
RING_SIZE = 1024
REQ = 0  # what the guest sends
RSP = 1024  # what it is sent
REQ_CONS = 2048
REQ_PROD = 2052
RSP_CONS = 2056
RSP_PROD = 2060
SERVER_FEATURES = 2064
CONNECTION = 2068
ERROR_FIELD = 2072

FEATURE_RECONNECTION = 1
FEATURE_ERROR = 2

CONNECTED = 0
RECONNECT = 1

ERROR_NONE = 0
ERROR_RINGIDX = 2
ERROR_PROTO = 3
