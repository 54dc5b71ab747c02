"""grant_table_op, version 1 (xen/include/public/grant_table.h)."""

MAP_GRANT_REF = 0
UNMAP_GRANT_REF = 1
SETUP_TABLE = 2
COPY = 5
QUERY_SIZE = 6
SET_VERSION = 8
GET_VERSION = 10
SWAP_GRANT_REF = 11

# grant_entry_v1: flags, domid, frame. Flags: a type, and bits.
ENTRY = "<HHI"
ENTRY_SIZE = 8
ENTRIES_PER_FRAME = 512
GTF_TYPE_MASK = 3
GTF_PERMIT_ACCESS = 1
GTF_READONLY = 1 << 2
GTF_READING_BIT = 3  # set by whoever uses the grant, while he does
GTF_WRITING_BIT = 4

REF_CONSOLE = 0  # seeded by the toolstack
REF_XENSTORE = 1
MOST_FRAMES = 64  # libxl's default for max_grant_frames

# Arguments for 64- and 32-bit callers
MAP = "<QIIHhIQ"  # host_addr, flags, ref, dom, status, handle, dev_bus_addr
MAP_STATUS_AT = 18
UNMAP = "<QQIh2x"  # host_addr, dev_bus_addr, handle, status; 32-bit callers: the same, without padding at the end
UNMAP_STATUS_AT = 20
MAP_SIZE = 32
UNMAP_SIZE = 24
SETUP_64 = "<H2xIh6xQ"  # dom, nr_frames, status, frame_list
SETUP_32 = "<H2xIh2xI"
SETUP_STATUS_AT = 8
COPY_64 = "<QHH4xQHH4xHHh2x"  # source: ref or gmfn, domid, offset; dest: the same; len, flags, status
COPY_32 = "<IHHIHHHHh2x"
COPY_STATUS_AT_64, COPY_STATUS_AT_32 = 36, 20
QUERY = "<H2xIIh2x"  # dom, nr_frames, max_nr_frames, status
VERSION_OF = "<H2xI"  # dom, version
SWAP = "<IIh2x"  # ref_a, ref_b, status
SWAP_STATUS_AT = 8

GNTMAP_DEVICE_MAP = 1 << 0
GNTMAP_HOST_MAP = 1 << 1
GNTMAP_APPLICATION_MAP = 1 << 3
GNTMAP_CONTAINS_PTE = 1 << 4
GNTCOPY_SOURCE_GREF = 1 << 0
GNTCOPY_DEST_GREF = 1 << 1

GNTST_OKAY = 0
GNTST_GENERAL_ERROR = -1
GNTST_BAD_DOMAIN = -2
GNTST_BAD_GNTREF = -3
GNTST_BAD_HANDLE = -4
GNTST_BAD_VIRT_ADDR = -5
GNTST_PERMISSION_DENIED = -8
GNTST_BAD_PAGE = -9
GNTST_BAD_COPY_ARG = -10
GNTST_NO_SPACE = -13
