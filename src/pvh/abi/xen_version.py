"""xen_version commands (xen/include/public/version.h)."""

VERSION = 0
EXTRAVERSION = 1
COMPILE_INFO = 2
CAPABILITIES = 3
CHANGESET = 4
PLATFORM_PARAMETERS = 5
GET_FEATURES = 6
PAGESIZE = 7
GUEST_HANDLE = 8
COMMANDLINE = 9
BUILD_ID = 10

FEATURE_INFO = "<II"  # submap_idx, submap

# Xen's console_io commands (xen/include/public/xen.h)
CONSOLEIO_WRITE = 0
CONSOLEIO_READ = 1
