"""memory_op commands and layouts (xen/include/public/memory.h). The low six bits are the command."""

CMD_MASK = 0x3F
EXTENT_SHIFT = 6
INCREASE_RESERVATION = 0
DECREASE_RESERVATION = 1
MAXIMUM_RAM_PAGE = 2
CURRENT_RESERVATION = 3
MAXIMUM_RESERVATION = 4
POPULATE_PHYSMAP = 6
ADD_TO_PHYSMAP = 7
MEMORY_MAP = 9
MACHINE_MEMORY_MAP = 10
SET_MEMORY_MAP = 13
MAXIMUM_GPFN = 14
REMOVE_FROM_PHYSMAP = 15

XENMAPSPACE_SHARED_INFO = 0
XENMAPSPACE_GRANT_TABLE = 1
XENMAPSPACE_GMFN = 2
XENMAPSPACE_GMFN_RANGE = 3
XENMAPSPACE_GMFN_FOREIGN = 4
XENMAPSPACE_DEV_MMIO = 5
XENMAPIDX_GRANT_TABLE_STATUS = 1 << 31

XENMEMF_POPULATE_ON_DEMAND = 1 << 16

# struct xen_memory_reservation: extent_start, nr_extents, extent_order, mem_flags, domid
RESERVATION_32 = "<IIIIH2x"
RESERVATION_64 = "<QQIIH6x"
MOST_EXTENTS = 0xFFFFFFFF >> EXTENT_SHIFT  # more could not be told in a continuation
MOST_ORDER = 9  # CONFIG_DOMU_MAX_ORDER: an unprivileged domain's largest extent is 2 MiB

# struct xen_memory_map, 32- and 64-bit callers
MEMORY_MAP_32 = "<II"  # nr_entries, buffer
MEMORY_MAP_64 = "<I4xQ"
FOREIGN_MEMORY_MAP_32 = "<H2xII"  # domid, and a xen_memory_map
FOREIGN_MEMORY_MAP_64 = "<H6xI4xQ"
MOST_E820_ENTRIES = 1024
E820_ENTRY = "<QQI"  # packed, 20 bytes

ADD_TO_PHYSMAP_32 = "<HHIII"  # domid, size, space, idx, gpfn
ADD_TO_PHYSMAP_64 = "<HHIQQ"

REMOVE_FROM_PHYSMAP_32 = "<H2xI"  # domid, gpfn
REMOVE_FROM_PHYSMAP_64 = "<H6xQ"
