"""Runs inside (tools/nested): a real-mode guest adds two numbers on the genuine KVM, by bare ioctls.

It proves the harness, not the package: 8086 code at 0x1000 adds BX to AX, writes the sum to port 0x10 and halts.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import struct
import sys

CODE = b"\x01\xd8\xe6\x10\xf4"  # add ax, bx; out 0x10, al; hlt
KVM_GET_API_VERSION, KVM_CREATE_VM, KVM_GET_VCPU_MMAP_SIZE = 0xAE00, 0xAE01, 0xAE04
KVM_CREATE_VCPU, KVM_RUN, KVM_SET_USER_MEMORY_REGION = 0xAE41, 0xAE80, 0x4020AE46
KVM_SET_REGS, KVM_GET_SREGS, KVM_SET_SREGS = 0x4090AE82, 0x8138AE83, 0x4138AE84
KVM_EXIT_IO, KVM_EXIT_HLT = 2, 5
BASE = 0x1000


def main() -> int:
    """Run the guest; print what it did as one JSON line."""
    kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    vm = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
    ram = mmap.mmap(-1, 0x1000)
    ram[: len(CODE)] = CODE
    address = ctypes.addressof(ctypes.c_char.from_buffer(ram))
    fcntl.ioctl(vm, KVM_SET_USER_MEMORY_REGION, struct.pack("=IIQQQ", 0, 0, BASE, 0x1000, address))
    vcpu = fcntl.ioctl(vm, KVM_CREATE_VCPU, 0)
    run = mmap.mmap(vcpu, fcntl.ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0))
    segments = bytearray(fcntl.ioctl(vcpu, KVM_GET_SREGS, bytes(0x138)))
    struct.pack_into("=Q4xH", segments, 0, 0, 0)  # CS: base 0, selector 0 (struct kvm_segment: base, limit, selector)
    fcntl.ioctl(vcpu, KVM_SET_SREGS, bytes(segments))
    registers = [2, 3] + [0] * 14 + [BASE, 2]  # RAX, RBX, ..., RIP, RFLAGS
    fcntl.ioctl(vcpu, KVM_SET_REGS, struct.pack("=18Q", *registers))
    reasons: list[int] = []
    written: list[int] = []
    while not reasons or reasons[-1] == KVM_EXIT_IO:
        fcntl.ioctl(vcpu, KVM_RUN, 0)
        reasons += struct.unpack_from("=I", run, 8)
        if reasons[-1] == KVM_EXIT_IO:
            (offset,) = struct.unpack_from("=Q", run, 40)
            written.append(run[offset])
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        svm = " svm " in file.read()
    version = fcntl.ioctl(kvm, KVM_GET_API_VERSION, 0)
    print(json.dumps({"api": version, "svm": svm, "written": written, "reasons": reasons}))
    return 0 if written == [5] and reasons[-1] == KVM_EXIT_HLT else 1


if __name__ == "__main__":
    sys.exit(main())
