"""Opening /dev/kvm, and saying precisely why not."""

from __future__ import annotations

import errno
import os

from pvh import native
from pvh.engines.kvm import ioctl as kvm
from pvh.errors import NoEngine

DEVICE = "/dev/kvm"

_REASONS = {
    errno.ENOENT: (
        "there is no /dev/kvm",
        "load kvm_intel or kvm_amd, switch virtualisation on in the firmware, or give a container --device /dev/kvm",
    ),
    errno.EACCES: ("/dev/kvm may not be opened by this user", "join the group that owns it: usermod -aG kvm $USER"),
    errno.ENODEV: ("/dev/kvm has no driver behind it", "load kvm_intel or kvm_amd"),
    errno.ENXIO: ("/dev/kvm has no driver behind it", "load kvm_intel or kvm_amd"),
    errno.EBUSY: ("another hypervisor on this host uses the processor's virtualisation", "stop it"),
}


def open_device(path: str = DEVICE) -> int:
    """Open the KVM device and check that this package can use it; return its descriptor. Raises NoEngine."""
    if os.uname().machine != "x86_64":
        raise NoEngine(f"KVM on {os.uname().machine} cannot run x86 guests", hint="use --engine emulator")
    if not native.available():  # without LOCKed instructions Xen's side and running vCPUs would undo each other's bits
        raise NoEngine("this host forbids executable memory, which KVM guests need", hint="use --engine emulator")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        cause, hint = _REASONS.get(error.errno or 0, (f"{path} cannot be opened: {reason}", "use --engine emulator"))
        raise NoEngine(cause, hint=hint) from None
    try:
        _check(fd, path)
    except NoEngine:
        os.close(fd)
        raise
    return fd


def virtualises() -> bool:
    """Whether the processor has VMX or SVM. Where it has not, KVM is software, and what it reports is to be doubted."""
    with open("/proc/cpuinfo", "rb") as file:
        words = file.read(8192).split()  # the first processor's flags
    return b"vmx" in words or b"svm" in words


def _check(fd: int, path: str) -> None:
    try:
        version = kvm.call(fd, kvm.GET_API_VERSION)
    except OSError:
        raise NoEngine(f"{path} is not a KVM device", hint="use --engine emulator") from None
    if version != kvm.API_VERSION:
        raise NoEngine("KVM speaks another interface", found=f"version {version}", wanted=f"version {kvm.API_VERSION}")
    missing = [name for number, (name, _) in kvm.NEEDED.items() if kvm.call(fd, kvm.CHECK_EXTENSION, number) <= 0]
    if missing:
        release = max((r for n, r in kvm.NEEDED.values() if n in missing), key=lambda r: tuple(map(int, r.split("."))))
        raise NoEngine(f"this KVM lacks {', '.join(missing)}", hint=f"a kernel since {release} has it")
