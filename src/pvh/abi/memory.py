"""memory_op commands and layouts (xen/include/public/memory.h). The low six bits are the command."""

CMD_MASK = 0x3F
INCREASE_RESERVATION = 0
DECREASE_RESERVATION = 1
CURRENT_RESERVATION = 3
MAXIMUM_RESERVATION = 4
POPULATE_PHYSMAP = 6
ADD_TO_PHYSMAP = 7
MEMORY_MAP = 9
MAXIMUM_GPFN = 14
REMOVE_FROM_PHYSMAP = 15

XENMAPSPACE_SHARED_INFO = 0
XENMAPSPACE_GRANT_TABLE = 1

# struct xen_memory_map, 32- and 64-bit callers
MEMORY_MAP_32 = "<II"  # nr_entries, buffer
MEMORY_MAP_64 = "<I4xQ"
E820_ENTRY = "<QQI"  # packed, 20 bytes

ADD_TO_PHYSMAP_32 = "<HHIII"  # domid, size, space, idx, gpfn
ADD_TO_PHYSMAP_64 = "<HHIQQ"
