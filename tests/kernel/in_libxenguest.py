"""Load a kernel by the real libxenguest 4.17, without Xen: in_libxenguest.py FOLDER KERNEL. Its log goes to stderr.

What it logs until it has loaded the kernel is what libxl's guests get. After that it wants a hypervisor, and may crash.
Offsets: struct xc_dom_image of 4.17's xenguest.h on x86-64.
"""

from __future__ import annotations

import ctypes
import sys

LIBRARIES = (
    *("libxentoolcore.so.1", "libxentoollog.so.1", "libxencall.so.1", "libxenforeignmemory.so.1"),
    *("libxendevicemodel.so.1", "libxenevtchn.so.1", "libxengnttab.so.1", "libxenctrl.so.4.17", "libxenstore.so.4"),
)
CONTAINER_TYPE, XEN_CAPS = 1712, 612
HVM_CONTAINER = 1
DUMMY = 1  # XC_OPENFLAG_DUMMY: no interface is opened
DEBUG = 1  # XTL_DEBUG
POINTER = ctypes.c_void_p


def main(folder: str, kernel: str) -> None:
    loaded = {name: ctypes.CDLL(f"{folder}/{name}", mode=ctypes.RTLD_GLOBAL) for name in LIBRARIES}
    guest = ctypes.CDLL(f"{folder}/libxenguest.so.4.17")
    logger = loaded["libxentoollog.so.1"].xtl_createlogger_stdiostream
    logger.restype, logger.argtypes = POINTER, (POINTER, ctypes.c_int, ctypes.c_uint)
    log = logger(POINTER.in_dll(ctypes.CDLL(None), "stderr"), DEBUG, 0)
    opened = loaded["libxenctrl.so.4.17"].xc_interface_open
    opened.restype, opened.argtypes = POINTER, (POINTER, POINTER, ctypes.c_uint)
    guest.xc_dom_allocate.restype, guest.xc_dom_allocate.argtypes = POINTER, (POINTER, ctypes.c_char_p, ctypes.c_char_p)
    image = guest.xc_dom_allocate(opened(log, log, DUMMY), b"", None)
    ctypes.c_int.from_address(image + CONTAINER_TYPE).value = HVM_CONTAINER
    ctypes.memmove(image + XEN_CAPS, b"hvm-3.0-x86_32 \0", 16)
    for step, *more in (("xc_dom_kernel_file", kernel.encode()), ("xc_dom_parse_image",), ("xc_dom_mem_init", 4096),
                        ("xc_dom_build_image",)):  # fmt: skip
        if getattr(guest, step)(POINTER(image), *more):
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
