"""Start a kernel by the real libkrun: in_libkrun.py LIBRARY KERNEL [MODULE COMMAND-LINE].

What libkrun says goes to standard error and output, what the guest's serial port says to standard output.
"""

from __future__ import annotations

import ctypes
import os
import sys

DEBUG = 4
ELF = 1  # KRUN_KERNEL_FORMAT_ELF


def main(library: str, kernel: str, module: str = "", cmdline: str = "") -> None:
    krun = ctypes.CDLL(library, mode=os.RTLD_LAZY)  # this build leaves symbols of virglrenderer open
    krun.krun_get_last_error.restype = ctypes.c_char_p
    krun.krun_set_log_level(DEBUG)
    context = krun.krun_create_ctx()
    krun.krun_set_vm_config(context, 1, 256)
    krun.krun_set_kernel(context, kernel.encode(), ELF, module.encode() or None, cmdline.encode())
    krun.krun_add_serial_console_default(context, 0, 1)
    krun.krun_start_enter(context)
    print(krun.krun_get_last_error().decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
