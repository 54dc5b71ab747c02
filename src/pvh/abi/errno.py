"""Xen's error numbers (xen/include/public/errno.h); a hypercall returns them negated."""

EPERM = 1
ENOENT = 2
ESRCH = 3
EIO = 5
ENXIO = 6
E2BIG = 7
EAGAIN = 11
ENOMEM = 12
EACCES = 13
EFAULT = 14
EBUSY = 16
EEXIST = 17
ENODEV = 19
EINVAL = 22
ENOSPC = 28
EDOM = 33
ENOSYS = 38
ENODATA = 61
ETIME = 62
EILSEQ = 84
EOPNOTSUPP = 95
ENOBUFS = 105

NAMES = {number: name for name, number in list(globals().items()) if name[0] == "E" and isinstance(number, int)}
