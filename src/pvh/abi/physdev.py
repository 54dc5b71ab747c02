"""physdev_op commands and layouts (xen/include/public/physdev.h)."""

MAP_PIRQ = 13
UNMAP_PIRQ = 14

MAP = "<H2xiii"  # domid, type, index, pirq; what follows is of no interest to who refuses
UNMAP = "<H2xi"  # domid, pirq
