"""vm_assist (xen/include/public/xen.h): the one type that is for HVM guests."""

ENABLE = 0
DISABLE = 1
RUNSTATE_UPDATE_FLAG = 5
